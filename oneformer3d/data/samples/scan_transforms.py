"""Augmentations that make clouds as partial, sparse and uneven as real scans.

Enters and leaves: ``results`` with points (N, 6) and their masks (N,), rgb 0–255. Points may get
fewer; superpoints and instances stay dense. They belong before ``NormalizeColor`` and are for
points alone: scenes with loaded views are refused where points would leave their pixels.
``AddStrayPoint`` is none of them: it asks at test time what one wrong measurement does.
Random numbers come from numpy's global generator, which the runner seeds in every worker.

N points, S superpoints.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from oneformer3d.data.class_tables import get_class_table
from oneformer3d.registry import TRANSFORMS

from .loading import densify
from .transforms import elastic_offsets, two_numbers

_POINTWISE = ('points', 'elastic_coords', 'pts_semantic_mask')
_DENSE = ('sp_pts_mask', 'pts_instance_mask')


@TRANSFORMS.register_module()
class CutAbove:
    """Leave out what lies above a random height, as scans that never look up do.

    Args:
        heights: range of the height over the scene's lowest hundredth, metres.
        prob: how often.
    """

    def __init__(self, heights: Sequence[float] = (1.4, 2.6), prob: float = 0.5) -> None:
        self.heights = two_numbers(heights)
        self.prob = prob

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Return ``results`` without what lies above."""
        if np.random.rand() >= self.prob:
            return results
        z = results['points'][:, 2]
        return keep_points(results, z < np.percentile(z, 1) + np.random.uniform(*self.heights))


@TRANSFORMS.register_module()
class CropScene:
    """Keep the points nearest to one of them, as seen from above: a square, round or half scene.

    Args:
        num_points: at most so many are kept; larger scenes are always cropped.
        prob: how often smaller scenes are cropped too, to at least a third.
    """

    def __init__(self, num_points: int, prob: float = 0.3) -> None:
        if num_points < 1:
            raise ValueError(f'num_points must be positive, got {num_points}')
        self.num_points = num_points
        self.prob = prob

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Return ``results`` with part of the points."""
        xy = results['points'][:, :2]
        num = min(len(xy), self.num_points)
        if np.random.rand() < self.prob:
            num = int(num * np.random.uniform(0.35, 1.0))
        if num == len(xy):
            return results

        offset = np.abs(xy - xy[np.random.randint(len(xy))])  # (N, 2)
        shape = np.random.randint(3)
        if shape == 2:  # a half-plane of any direction
            angle = np.random.uniform(0, 2 * np.pi)
            distance = xy @ np.array([np.cos(angle), np.sin(angle)], np.float32)
        else:
            distance = offset.max(axis=1) if shape else np.linalg.norm(offset, axis=1)

        keep = np.zeros(len(xy), bool)
        keep[np.argpartition(distance, num - 1)[:num]] = True
        return keep_points(results, keep)


@TRANSFORMS.register_module()
class DropPoints:
    """Leave out single points and round holes.

    Args:
        ratio: range of the share of points that is left out one by one.
        num_holes: at most so many holes.
        radius: range of a hole's radius, metres.
    """

    def __init__(
        self,
        ratio: Sequence[float] = (0.0, 0.3),
        num_holes: int = 8,
        radius: Sequence[float] = (0.1, 0.4),
    ) -> None:
        if not 0 <= ratio[0] <= ratio[1] < 1:
            raise ValueError(f'ratio must be a range within 0…1, got {ratio}')
        self.ratio = two_numbers(ratio)
        self.num_holes = num_holes
        self.radius = two_numbers(radius)

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Return ``results`` with fewer points, never none."""
        xyz = results['points'][:, :3]
        keep = np.random.rand(len(xyz)) >= np.random.uniform(*self.ratio)
        for _ in range(np.random.randint(self.num_holes + 1)):
            middle = xyz[np.random.randint(len(xyz))]
            keep &= ((xyz - middle) ** 2).sum(axis=1) > np.random.uniform(*self.radius) ** 2
        return keep_points(results, keep) if keep.any() else results


@TRANSFORMS.register_module()
class DriftPoints:
    """Bend a scene smoothly and shake its points, as drift and noise of a sensor do.

    Args:
        drift: range of the standard deviation of the bending, metres.
        wave: its nodes are so far apart, metres.
        noise: range of the standard deviation of each point, metres.
    """

    def __init__(
        self,
        drift: Sequence[float] = (0.0, 0.02),
        wave: float = 0.5,
        noise: Sequence[float] = (0.0, 0.008),
    ) -> None:
        self.drift = two_numbers(drift)
        self.wave = wave
        self.noise = two_numbers(noise)

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Return ``results`` with moved points.

        Raises:
            ValueError: the scene has views, which would no longer show its points.
        """
        if 'views' in results or 'elastic_coords' in results:
            raise ValueError('DriftPoints is for points alone, before elastic distortion')
        points = results['points'].copy()
        # two blurs leave about a quarter of the standard deviation of the nodes
        bend = 4 * np.random.uniform(*self.drift) * elastic_offsets(points[:, :3], self.wave / 2)
        shake = np.random.uniform(*self.noise) * np.random.standard_normal((len(points), 3))
        points[:, :3] += (bend + shake).astype(np.float32)
        return {**results, 'points': points}


@TRANSFORMS.register_module()
class SurfaceColorGain:
    """Brightness, contrast and saturation of the scene, and a gain of each superpoint's own.

    Args:
        scene: standard deviation of the logarithm of the scene's gains.
        surface: the same of each superpoint, per channel.
        gray: how often the scene loses its colours.
    """

    def __init__(self, scene: float = 0.2, surface: float = 0.12, gray: float = 0.05) -> None:
        self.scene = scene
        self.surface = surface
        self.gray = gray

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Return ``results`` with other colours."""
        points = results['points'].copy()
        color = points[:, 3:6]
        mean = color.mean(axis=0)
        luma = color.mean(axis=1, keepdims=True)

        contrast, saturation = np.exp(self.scene * np.random.standard_normal(2))
        saturation *= np.random.rand() >= self.gray
        gain = np.exp(
            self.scene * np.random.standard_normal() + 0.05 * np.random.standard_normal(3)
        )
        color = luma + saturation * (color - luma)
        color = gain * (mean + contrast * (color - mean))

        patch = results['sp_pts_mask']
        shades = self.surface * np.random.standard_normal((int(patch.max()) + 1, 3))  # (S, 3)
        points[:, 3:6] = np.clip(color * np.exp(shades)[patch], 0, 255)
        return {**results, 'points': points}


@TRANSFORMS.register_module()
class AddStrayPoint:
    """One black point below the middle of a scene, as sensors return it from a shiny floor.

    It is a superpoint of its own without a label. A network that knows the floor as the lowest
    cell of its grid loses the floor by it.

    Args:
        below: its distance to the lowest point, metres.
    """

    def __init__(self, below: float = 0.1) -> None:
        if below <= 0:
            raise ValueError(f'below must be positive, got {below}')
        self.below = below

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Return ``results`` with one more point, the last.

        Raises:
            ValueError: the scene has views; they are loaded after the points are complete.
        """
        if 'views' in results:
            raise ValueError('AddStrayPoint must come before the views are loaded')
        points = results['points']
        stray = np.zeros((1, points.shape[1]), points.dtype)
        stray[0, :2] = np.median(points[:, :2], axis=0)
        stray[0, 2] = points[:, 2].min() - self.below

        unlabeled = get_class_table(results['class_table']).ignore_index
        longer = {**results, **_with_unlabeled(results, unlabeled)}
        longer['points'] = np.concatenate([points, stray])  # (N + 1, 6)
        if 'eval_ann_info' in results:
            truth = results['eval_ann_info']
            longer['eval_ann_info'] = {**truth, **_with_unlabeled(truth, unlabeled)}
        return longer


def _with_unlabeled(masks: dict[str, Any], unlabeled: int) -> dict[str, np.ndarray]:
    """The masks (N,) of a scene → (N + 1,), the last a superpoint of its own without labels."""
    last = {'pts_semantic_mask': unlabeled, 'pts_instance_mask': -1}
    if 'sp_pts_mask' in masks:
        last['sp_pts_mask'] = masks['sp_pts_mask'].max() + 1
    return {key: np.append(masks[key], label) for key, label in last.items() if key in masks}


def keep_points(results: dict[str, Any], keep: np.ndarray) -> dict[str, Any]:
    """The scene with some of its points.

    Args:
        results: with ``points`` and perhaps the masks.
        keep: (N,) bool.

    Raises:
        ValueError: the scene has views; they are loaded after the points are chosen.
    """
    if 'views' in results:
        raise ValueError('points must be left out before the views are loaded')
    results = dict(results)
    results.update({key: results[key][keep] for key in _POINTWISE if key in results})
    results.update({key: densify(results[key][keep]) for key in _DENSE if key in results})
    return results
