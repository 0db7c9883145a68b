"""What can be wrong with a folder of posed frames, as changes that would put it right.

Enters: nothing. Leaves: ``Change`` records, each a few functions of arrays, and ``FAMILIES``, the
kinds of change with the values at which each is tried. N frames of a sequence, H×W the depth image.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_MAX_SHIFT = 10  # frames
MAX_DEPTH_VALUE = 65535.0


@dataclass(frozen=True)
class Change:
    """One thing to change. What is None stays.

    Attributes:
        text: what to do, in words.
        poses: of poses (..., 4, 4) as they are in the files.
        positions: where in the sequence of N poses the pose of each frame stands; of positions
            (F,) and N. They need not be whole numbers.
        depth: of depth (..., H, W) and intrinsics (3, 3).
        factor: that depth is multiplied with.
        intrinsics: of K (..., 3, 3) and the size (H, W) of the image.
        keeps: whether nothing changes.
    """

    text: str
    poses: Callable[[Array], Array] | None = None
    positions: Callable[[Array, int], Array] | None = None
    depth: Callable[[NDArray[np.float32], Array], NDArray[np.float32]] | None = None
    factor: float = 1.0
    intrinsics: Callable[[Array, tuple[int, int]], Array] | None = None

    @property
    def keeps(self) -> bool:
        """Whether nothing changes."""
        return self.factor == 1.0 and not any(
            (self.poses, self.positions, self.depth, self.intrinsics)
        )


@dataclass(frozen=True)
class Family:
    """A change of one kind and a number, and where it is tried.

    Attributes:
        make: the change of a value.
        values: that are tried, without the one that changes nothing.
        step: half of it is where refinement begins; 0 if the values are all there are.
    """

    make: Callable[[float], Change]
    values: tuple[float, ...]
    step: float = 0.0


# --- poses: a camera mounted elsewhere ---


def _mounted(matrix: Array) -> Callable[[Array], Array]:
    return lambda poses: poses @ matrix


def mount_change(motion: Array, text: str) -> Change:
    """Poses are those of another camera: ``pose @ motion`` (4, 4)."""
    return Change(text, _mounted(motion))


def _turned(axis: int) -> Callable[[float], Change]:
    def make(degrees: float) -> Change:
        cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        first, second = (axis + 1) % 3, (axis + 2) % 3
        motion = np.eye(4)
        motion[[first, second], [first, second]] = cosine
        motion[first, second], motion[second, first] = -sine, sine
        return Change(
            f'poses: turn the camera by {degrees:.3g}° about its {"xyz"[axis]} axis',
            _mounted(motion),
        )

    return make


# --- time ---------------------------------------------------------------------------------------


def shift_change(frames: float) -> Change:
    """Each frame has the pose that stands so many frames later."""
    return Change(
        f'time: frame i has the pose of frame i{frames:+.0f}',
        positions=lambda positions, _: positions + frames,
    )


def order_changes(num_frames: int) -> list[Change]:
    """Poses listed backwards, or in the order of their numbers as text or as numbers."""
    as_text = np.array(sorted(range(num_frames), key=str), dtype=np.float64)
    place = np.argsort(as_text).astype(np.float64)
    changes = [
        Change('time: poses stand in reverse order', positions=lambda p, n: n - 1 - p),
        Change('time: every second pose is of a frame', positions=lambda p, _: 2 * p),
        Change('time: a pose is of two frames', positions=lambda p, _: p / 2),
    ]
    for text, table in (('text', as_text), ('numbers', place)):
        if len(table) > 10:
            changes.append(
                Change(
                    f'time: poses stand in the order of {text}',
                    positions=lambda p, _, table=table: _looked_up(table, p),
                )
            )
    return changes


def _looked_up(table: Array, positions: Array) -> Array:
    """Entries of a table; positions outside of it stay outside."""
    inside = (positions >= 0) & (positions <= len(table) - 1)
    return np.where(inside, table[np.where(inside, positions, 0).round().astype(int)], -1)


# --- depth --------------------------------------------------------------------------------------


def factor_change(factor: float) -> Change:
    """Depth is multiplied."""
    return Change(f'depth: multiply by {factor:.4g}', factor=factor)


def pose_scale_change(factor: float) -> Change:
    """The translations of the poses are multiplied."""
    scale = np.array([[1.0, 1, 1, factor]] * 3 + [[1.0, 1, 1, 1]])
    return Change(
        f'poses: multiply their translations by {factor:.4g}', poses=lambda poses: poses * scale
    )


def depth_changes() -> list[Change]:
    """Depth that is no z-depth, or whose bits were moved."""
    return [
        Change('depth: is the distance along the ray, divide by the ray', depth=_z_of_distance),
        Change(
            'depth: is z that was taken for a distance, multiply by the ray', depth=_distance_of_z
        ),
        Change('depth: swap the two bytes', depth=lambda d, _: _bits(d, lambda b: b.byteswap())),
        Change(
            'depth: turn the 16 bits by 3 (SUN RGB-D)',
            depth=lambda d, _: _bits(d, lambda b: (b >> 3) | (b << 13)),
        ),
        Change('depth: is a disparity, take its inverse', depth=_inverse),
        Change('depth: mirror left and right', depth=lambda d, _: d[..., ::-1]),
        Change('depth: mirror up and down', depth=lambda d, _: d[..., ::-1, :]),
        Change('depth: turn by 180°', depth=lambda d, _: d[..., ::-1, ::-1]),
    ]


def offset_change(values: float) -> Change:
    """A number is added to depth that is there."""
    return Change(
        f'depth: add {values:.4g} to every value',
        depth=lambda d, _: np.where(d > 0, np.maximum(d + np.float32(values), 0), 0),
    )


def _ray_length(shape: tuple[int, ...], intrinsics: Array) -> NDArray[np.float32]:
    v, u = np.mgrid[: shape[-2], : shape[-1]]
    rays = np.stack([u, v, np.ones_like(u)], -1) @ np.linalg.inv(intrinsics).T
    return np.linalg.norm(rays / rays[..., 2:], axis=-1).astype(np.float32)


def _z_of_distance(depth: NDArray[np.float32], intrinsics: Array) -> NDArray[np.float32]:
    return depth / _ray_length(depth.shape, intrinsics)


def _distance_of_z(depth: NDArray[np.float32], intrinsics: Array) -> NDArray[np.float32]:
    return depth * _ray_length(depth.shape, intrinsics)


def _inverse(depth: NDArray[np.float32], _: Array) -> NDArray[np.float32]:
    known = depth > 0
    typical = float(np.median(depth[known])) if known.any() else 1.0
    return np.where(known, typical**2 / np.where(known, depth, 1), 0).astype(np.float32)


def _bits(depth: NDArray, change: Callable[[NDArray[np.uint16]], NDArray]) -> NDArray[np.float32]:
    return change(np.clip(depth, 0, MAX_DEPTH_VALUE).astype(np.uint16)).astype(np.float32)


# --- intrinsics ---------------------------------------------------------------------------------


def intrinsics_changes() -> list[Change]:
    """K written in another way."""

    def permuted(k: Array, _: tuple[int, int]) -> Array:
        changed = k.copy()
        changed[..., [0, 1], [0, 1]] = k[..., [1, 0], [1, 0]]
        changed[..., [0, 1], [2, 2]] = k[..., [1, 0], [2, 2]]
        return changed

    def focal_only(k: Array, _: tuple[int, int]) -> Array:
        changed = k.copy()
        changed[..., [0, 1], [0, 1]] = k[..., [1, 0], [1, 0]]
        return changed

    def point_only(k: Array, _: tuple[int, int]) -> Array:
        changed = k.copy()
        changed[..., [0, 1], [2, 2]] = k[..., [1, 0], [2, 2]]
        return changed

    def mixed(k: Array, _: tuple[int, int]) -> Array:  # written as cx, cy, fx, fy
        changed = k.copy()
        changed[..., [0, 1], [0, 1]] = k[..., [0, 1], [2, 2]]
        changed[..., [0, 1], [2, 2]] = k[..., [0, 1], [0, 1]]
        return changed

    def centered(k: Array, size: tuple[int, int]) -> Array:
        changed = k.copy()
        changed[..., 0, 2], changed[..., 1, 2] = (size[1] - 1) / 2, (size[0] - 1) / 2
        return changed

    return [
        Change('K: transpose it', intrinsics=lambda k, _: k.swapaxes(-1, -2)),
        Change('K: exchange fx with fy and cx with cy', intrinsics=permuted),
        Change('K: exchange fx with fy', intrinsics=focal_only),
        Change('K: exchange cx with cy', intrinsics=point_only),
        Change('K: exchange focal lengths with the principal point', intrinsics=mixed),
        Change('K: the principal point is the middle of the image', intrinsics=centered),
        Change(
            'K: mirror cx (cx → width − 1 − cx)',
            intrinsics=lambda k, size: _moved(k, size[1] - 1 - 2 * k[..., 0, 2], 0),
        ),
        Change(
            'K: mirror cy (cy → height − 1 − cy)',
            intrinsics=lambda k, size: _moved(k, 0, size[0] - 1 - 2 * k[..., 1, 2]),
        ),
    ]


def resize_change(scale: float) -> Change:
    """K belongs to an image that is ``1 / scale`` times as large."""

    def change(k: Array, _: tuple[int, int]) -> Array:
        # u' = (u + 0.5) · s − 0.5
        resize = np.diag([scale, scale, 1.0])
        resize[:2, 2] = (scale - 1) / 2
        return resize @ k

    return Change(f'K: is of an image of another size, resize it by {scale:.4g}', intrinsics=change)


def focal_change(scale: float) -> Change:
    """Both focal lengths are multiplied."""
    return Change(
        f'K: multiply fx and fy by {scale:.4g}',
        intrinsics=lambda k, _: k * np.array([[scale, 1, 1], [1, scale, 1], [1, 1, 1]]),
    )


def aspect_change(scale: float) -> Change:
    """fx is multiplied and fy divided."""
    return Change(
        f'K: multiply fx and divide fy by {scale:.4g}',
        intrinsics=lambda k, _: k * np.array([[scale, 1, 1], [1, 1 / scale, 1], [1, 1, 1]]),
    )


def point_change(axis: int) -> Callable[[float], Change]:
    """The principal point moves by a share of the focal length."""

    def make(share: float) -> Change:
        return Change(
            f'K: move c{"xy"[axis]} by {share:.3g} of the focal length',
            intrinsics=lambda k, _: _moved(
                k, *((share * k[..., 0, 0], 0) if axis == 0 else (0, share * k[..., 1, 1]))
            ),
        )

    return make


def _moved(k: Array, du: Array | float, dv: Array | float) -> Array:
    changed = k.copy()
    changed[..., 0, 2] += du
    changed[..., 1, 2] += dv
    return changed


def _powers(base: float, limit: float) -> tuple[float, ...]:
    count = int(np.log(limit) / np.log(base))
    return tuple(float(base**k) for k in range(-count, count + 1) if k)


def _steps(step: float, count: int) -> tuple[float, ...]:
    return tuple(step * k for k in range(-count, count + 1) if k)


TIME_SHIFT = Family(shift_change, _steps(1.0, _MAX_SHIFT))
DEPTH_FACTOR = Family(factor_change, _powers(1.04, 1.3e4), 0.04)
FAMILIES = (
    DEPTH_FACTOR,
    TIME_SHIFT,
    Family(resize_change, _powers(1.04, 6.0), 0.04),
    Family(focal_change, _powers(1.04, 3.0), 0.04),
    Family(aspect_change, _powers(1.04, 2.0), 0.04),
    Family(point_change(0), _steps(0.03, 12), 0.03),
    Family(point_change(1), _steps(0.03, 12), 0.03),
    Family(_turned(0), _steps(3.0, 15), 3.0),
    Family(_turned(1), _steps(3.0, 15), 3.0),
    Family(_turned(2), _steps(4.0, 44), 4.0),
)
