"""Conventions in which poses are written, as changes that undo them.

Enters: nothing. Leaves: ``pose_changes``: direction, parts, handedness, axes and order of
quaternions, each with each.
"""

import itertools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .changes import Change

Array = NDArray[np.float64]


def pose_changes() -> list[Change]:
    """Poses read in every way: direction, handedness and axes, order of quaternions."""
    changes = []
    for (order, reorder), (form, inform), axes in itertools.product(
        _ORDERS.items(), _FORMS.items(), _signed_permutations()
    ):
        texts = [text for text in (order, form, _axes_text(axes)) if text]
        if texts:
            changes.append(Change('poses: ' + ', then '.join(texts), _chain(reorder, inform, axes)))
    return changes


def _invert(poses: Array) -> Array:
    inverse = np.tile(np.eye(4), (*poses.shape[:-2], 1, 1))
    rotation = poses[..., :3, :3].swapaxes(-1, -2)
    inverse[..., :3, :3] = rotation
    inverse[..., :3, 3] = -(rotation @ poses[..., :3, 3:])[..., 0]
    return inverse


def _transpose_rotation(poses: Array) -> Array:
    return _with_parts(poses, poses[..., :3, :3].swapaxes(-1, -2), poses[..., :3, 3])


def _center_from_translation(poses: Array) -> Array:
    center = -(poses[..., :3, :3] @ poses[..., :3, 3:])[..., 0]
    return _with_parts(poses, poses[..., :3, :3], center)


def _with_parts(poses: Array, rotation: Array, translation: Array) -> Array:
    changed = poses.copy()
    changed[..., :3, :3], changed[..., :3, 3] = rotation, translation
    return changed


def _reorder_quaternion(shift: int) -> Callable[[Array], Array]:
    """Poses whose quaternion (x, y, z, w) was read with its numbers moved on by ``shift``."""

    def change(poses: Array) -> Array:
        quaternion = quaternion_of(poses[..., :3, :3])
        # the sign of a quaternion is free, and its order does not change that
        return _with_parts(
            poses, rotation_of(np.roll(quaternion, shift, axis=-1)), poses[..., :3, 3]
        )

    return change


def quaternion_of(rotation: Array) -> Array:
    """(..., 4) unit quaternions x, y, z, w of rotations (..., 3, 3)."""
    m = rotation
    # q qᵀ has these entries times 4, by which its largest column is q up to its length
    xx, yy, zz = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    xy, xz, yz = (
        m[..., 0, 1] + m[..., 1, 0],
        m[..., 0, 2] + m[..., 2, 0],
        m[..., 1, 2] + m[..., 2, 1],
    )
    xw, yw, zw = (
        m[..., 2, 1] - m[..., 1, 2],
        m[..., 0, 2] - m[..., 2, 0],
        m[..., 1, 0] - m[..., 0, 1],
    )
    outer = np.stack(
        [
            np.stack([1 + xx - yy - zz, xy, xz, xw], -1),
            np.stack([xy, 1 - xx + yy - zz, yz, yw], -1),
            np.stack([xz, yz, 1 - xx - yy + zz, zw], -1),
            np.stack([xw, yw, zw, 1 + xx + yy + zz], -1),
        ],
        axis=-2,
    )
    largest = np.diagonal(outer, axis1=-2, axis2=-1).argmax(-1)
    column = np.take_along_axis(outer, largest[..., None, None], axis=-1)[..., 0]
    return column / np.linalg.norm(column, axis=-1, keepdims=True)


def rotation_of(quaternion: Array) -> Array:
    """(..., 3, 3) rotations of unit quaternions (..., 4), x, y, z, w."""
    x, y, z, w = np.moveaxis(quaternion, -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, -1) for row in rows], -2)


_ORDERS: dict[str, Callable[[Array], Array] | None] = {
    '': None,
    'quaternion order wxyz read as xyzw': _reorder_quaternion(-1),
    'quaternion order xyzw read as wxyz': _reorder_quaternion(1),
}
_FORMS: dict[str, Callable[[Array], Array] | None] = {
    '': None,
    'inv(pose)': _invert,
    'transpose the rotation only': _transpose_rotation,
    'translation = -R @ translation': _center_from_translation,
}


def common_pose_changes() -> list[Change]:
    """Of all changes of poses those that keep the axes or turn them over."""
    return [change for change in pose_changes() if not _renames_axes(change)]


def _renames_axes(change: Change) -> bool:
    return 'columns' in change.text and not change.text.endswith(_DIAGONAL)


_DIAGONAL = tuple(
    f'columns {a}x, {b}y, {c}z' for a in ('', '-') for b in ('', '-') for c in ('', '-')
)


def _signed_permutations() -> list[Array]:
    """The 48 ways to name three axes, (3, 3) each; the one that changes nothing first."""
    found = []
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1.0, -1.0), repeat=3):
            found.append(np.eye(3)[list(order)] * np.array(signs)[:, None])
    return found


def _axes_text(axes: Array) -> str:
    if np.array_equal(axes, np.eye(3)):
        return ''
    names = {(0, 1): 'x', (0, -1): '-x', (1, 1): 'y', (1, -1): '-y', (2, 1): 'z', (2, -1): '-z'}
    columns = [names[int(np.abs(c).argmax()), int(c.sum())] for c in axes.T]
    if np.linalg.det(axes) > 0:
        if np.array_equal(axes, np.diag([1.0, -1.0, -1.0])):
            return 'pose @ diag(1, -1, -1, 1) (OpenGL axes)'
        return f'camera axes x, y, z are the columns {", ".join(columns)}'
    return f'left-handed: mirror y of the world, camera axes are the columns {", ".join(columns)}'


def _chain(
    reorder: Callable[[Array], Array] | None,
    inform: Callable[[Array], Array] | None,
    axes: Array,
) -> Callable[[Array], Array]:
    camera = np.eye(4)
    camera[:3, :3] = axes
    # a mirrored camera needs a mirrored world, that the pose stays a rotation
    world = np.diag([1.0, np.sign(np.linalg.det(axes)), 1.0, 1.0])

    def change(poses: Array) -> Array:
        for step in (reorder, inform):
            poses = poses if step is None else step(poses)
        return world @ poses @ camera

    return change
