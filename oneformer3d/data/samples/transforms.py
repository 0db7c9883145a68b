"""Augmentations and colour normalisation of the published pipeline.

Enters and leaves: ``results`` with points (N, 6) and augmented_from_original (4, 4).
Each transform that moves points composes its 4×4 onto ``augmented_from_original``, so that the
images of the scene stay where they were: an original point is
``inv(augmented_from_original) @ augmented point``, and cameras move along by
``augmented_world_from_cam = augmented_from_original @ world_from_cam``.
Elastic distortion moves no point: it writes elastic_coords (N, 3), in voxels, for the voxel grid.
Random numbers come from numpy's global generator, which the runner seeds in every worker.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.ndimage import map_coordinates, uniform_filter1d

from oneformer3d.registry import TRANSFORMS


@TRANSFORMS.register_module()
class RandomFlipBEV:
    """Mirror the scene as seen from above.

    Args:
        prob_x: how often x becomes −x.
        prob_y: how often y becomes −y.
    """

    def __init__(self, prob_x: float = 0.5, prob_y: float = 0.5) -> None:
        for name, prob in (('prob_x', prob_x), ('prob_y', prob_y)):
            _check_probability(name, prob)
        self.prob_x = prob_x
        self.prob_y = prob_y

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Return moved ``results``."""
        flip = np.random.rand(2) < (self.prob_x, self.prob_y)
        if not flip.any():
            return results
        return move_scene(results, np.diag([*np.where(flip, -1.0, 1.0), 1.0, 1.0]))


@TRANSFORMS.register_module()
class RandomRotScaleTrans:
    """Turn about z, scale, shift: ``x ↦ s R x + t``.

    Args:
        rot_range: angle in radians, uniform.
        scale_ratio_range: s, uniform.
        translation_std: standard deviation of t in metres, per axis. Encoders that centre
            coordinates and begin their grid at the smallest one undo it; what moves a scene in
            its grid is their ``random_grid_start``.
    """

    def __init__(
        self,
        rot_range: Sequence[float] = (-np.pi, np.pi),
        scale_ratio_range: Sequence[float] = (0.8, 1.2),
        translation_std: Sequence[float] = (0.0, 0.0, 0.0),
    ) -> None:
        _check_range('rot_range', rot_range)
        _check_range('scale_ratio_range', scale_ratio_range)
        if scale_ratio_range[0] <= 0:
            raise ValueError(f'scale_ratio_range must be positive, got {scale_ratio_range}')
        if len(translation_std) != 3 or min(translation_std) < 0:
            raise ValueError(f'translation_std must be three numbers ≥ 0, got {translation_std}')
        self.rot_range = two_numbers(rot_range)
        self.scale_ratio_range = two_numbers(scale_ratio_range)
        self.translation_std = tuple(translation_std)

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Return moved ``results``."""
        angle = np.random.uniform(*self.rot_range)
        scale = np.random.uniform(*self.scale_ratio_range)

        sin, cos = np.sin(angle), np.cos(angle)
        moved_from_old = np.eye(4)
        moved_from_old[:3, :3] = scale * np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
        moved_from_old[:3, 3] = np.random.normal(scale=self.translation_std)
        return move_scene(results, moved_from_old)


@TRANSFORMS.register_module()
class ElasticDistortion:
    """Distort the voxel coordinates with smooth noise, coarse and coarser.

    ``elastic_coords`` is written either way, in voxels of ``voxel_size``; one draw decides whether
    all fields or none are applied. Points and cameras stay as they are. Belongs after the
    transforms that move points.

    Args:
        voxel_size: edge of the model's voxels in metres.
        granularity: of each field, in voxels; the noise has nodes every 2 × granularity.
        magnitude: of each field, in voxels.
        prob: how often the fields are applied.
    """

    def __init__(
        self,
        voxel_size: float,
        granularity: Sequence[float] = (6, 20),
        magnitude: Sequence[float] = (40, 160),
        prob: float = 0.5,
    ) -> None:
        _check_probability('prob', prob)
        if voxel_size <= 0 or min(granularity) <= 0:
            raise ValueError('voxel_size and granularity must be positive')
        if len(granularity) != len(magnitude):
            raise ValueError(
                f'expected as many magnitudes as granularities, got {len(magnitude)} and '
                f'{len(granularity)}'
            )
        self.voxel_size = voxel_size
        self.granularity = tuple(granularity)
        self.magnitude = tuple(magnitude)
        self.prob = prob

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Return ``results`` with ``elastic_coords`` (N, 3) float32."""
        coords = results['points'][:, :3] / np.float32(self.voxel_size)
        if np.random.rand() < self.prob:
            for granularity, magnitude in zip(self.granularity, self.magnitude):
                coords = coords + magnitude * elastic_offsets(coords, granularity)
        return {**results, 'elastic_coords': coords.astype(np.float32)}


@TRANSFORMS.register_module()
class NormalizeColor:
    """Colours 0–255 → ``(rgb − mean) / std``.

    Args:
        mean: one number, or one per channel.
        std: one number, or one per channel.
    """

    def __init__(
        self, mean: float | Sequence[float] = 127.5, std: float | Sequence[float] = 127.5
    ) -> None:
        self.mean = np.broadcast_to(np.asarray(mean, dtype=np.float32), (3,))
        self.std = np.broadcast_to(np.asarray(std, dtype=np.float32), (3,))
        if (self.std <= 0).any():
            raise ValueError(f'std must be positive, got {std}')

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Return ``results`` with normalised colours."""
        points = results['points'].copy()
        points[:, 3:6] = (points[:, 3:6] - self.mean) / self.std
        return {**results, 'points': points}


def move_scene(results: dict[str, Any], moved_from_old: np.ndarray) -> dict[str, Any]:
    """Apply an affine map to the points and note it.

    Args:
        results: with ``points`` (N, ≥ 3) and ``augmented_from_original`` (4, 4).
        moved_from_old: (4, 4).

    Returns:
        A new dictionary with both moved.

    Raises:
        ValueError: the scene has ``elastic_coords`` already, which would no longer belong to it.
    """
    if 'elastic_coords' in results:
        raise ValueError('elastic distortion must come after the transforms that move points')
    points = results['points'].copy()
    # x' = A x + b, in double so that nothing is lost over several moves
    xyz = points[:, :3].astype(np.float64)
    points[:, :3] = xyz @ moved_from_old[:3, :3].T + moved_from_old[:3, 3]
    augmented_from_original = moved_from_old @ results['augmented_from_original']
    return {**results, 'points': points, 'augmented_from_original': augmented_from_original}


def elastic_offsets(
    coords: np.ndarray, granularity: float, noise: np.ndarray | None = None
) -> np.ndarray:
    """Smooth random offsets at given positions (the elastic distortion of SSTNet and its heirs).

    Standard normal noise on a grid of ``n = |x|max // granularity + 3`` nodes per axis that spans
    ±(n − 1)·granularity (so nodes are 2·granularity apart), twice blurred by a 3-tap box along
    each axis with zeros beyond the grid, then interpolated linearly. Only the part of the grid
    around the points is ever drawn, so clouds far from the origin cost no more than others.

    Args:
        coords: (N, 3), in voxels.
        granularity: in voxels.
        noise: (3, n_x, n_y, n_z) noise of the full grid instead of random numbers.

    Returns:
        (N, 3) float32 offsets, to be multiplied by a magnitude.
    """
    num_nodes = (np.abs(coords).max(axis=0) // granularity).astype(np.int64) + 3
    at_node = coords.astype(np.float64) / (2 * granularity) + (num_nodes - 1) / 2

    # two 3-tap blurs reach two nodes far; the grid's own border stays where it is.
    first = np.maximum(np.floor(at_node.min(axis=0)).astype(np.int64) - 2, 0)
    last = np.minimum(np.floor(at_node.max(axis=0)).astype(np.int64) + 3, num_nodes - 1)
    shape = tuple(last - first + 1)
    if noise is None:
        field = np.random.standard_normal((3, *shape)).astype(np.float32)
    else:
        field = noise[(slice(None), *(slice(a, b + 1) for a, b in zip(first, last)))]
    for axis in (1, 2, 3, 1, 2, 3):
        field = uniform_filter1d(field, size=3, axis=axis, mode='constant')

    positions = (at_node - first).T  # (3, N)
    return np.stack(
        [map_coordinates(component, positions, order=1, mode='nearest') for component in field],
        axis=1,
    ).astype(np.float32)


def _check_probability(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f'{name} must be within 0…1, got {value}')


def two_numbers(values: Sequence[float]) -> tuple[float, float]:
    """A range as configs have it, a list perhaps."""
    low, high = values
    return low, high


def _check_range(name: str, value: Sequence[float]) -> None:
    if len(value) != 2 or not value[0] <= value[1]:
        raise ValueError(f'{name} must be (low, high), got {value}')
