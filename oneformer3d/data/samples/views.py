"""Images of a loaded scene → ``PosedViews``: features, poses and pixel-point pairs.

Enters: ``results`` with points (N, 6), augmented_from_original (4, 4) and the ``scene`` record.
Leaves: ``results`` with ``views``, all of it in original coordinates, so that it does not matter
what augmentation does to the points before or after. V views, N points, P visible pairs.

Dense features come from a feature store; without one the images themselves are loaded, for an
encoder that runs CLIP. Which points a view sees depends on scan and camera alone, so it is worked
out once and kept, up to a number of bytes in each process.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.logging import print_log
from torch import Tensor

from oneformer3d.files.images import read_image
from oneformer3d.files.left_out import LeftOut, LossRules
from oneformer3d.lifting.camera import invert_pose, transform_points
from oneformer3d.lifting.visibility import Visibility
from oneformer3d.registry import TRANSFORMS
from oneformer3d.store import FeatureStore, read_views
from oneformer3d.structures import PosedViews

from ..scenes import Frame, Scene
from .view_pairs import ViewPairs, join_views, pair_objects
from .view_selection import evenly_spread, greedy_coverage

SELECTIONS = ('random', 'even', 'first', 'coverage')
HIDE = (None, 'pixels', 'views')


@TRANSFORMS.register_module()
class LoadPosedViews:
    """Load views of a scene.

    Belongs after transforms that draw points; augmentation may come before or after.

    Args:
        clip_store: folder of a feature store; None loads the images instead.
        num_views: at most so many views per sample, None for all.
        select: which of more views: 'random' (training), 'even', 'first', or 'coverage': those
            that together see most points, chosen greedily.
        candidates: views that 'coverage' chooses from, spread evenly; None for all.
        random_candidates: draw them anew each time instead (training).
        view_dropout: how often each view is left out (training).
        image_dropout: how often a sample has no image content at all (training): half of these
            times its pixels are masked, poses and visibility stay; else it has no views.
        hide: for ablations, mask the 'pixels' or leave out the 'views' of every sample.
        occlusion: 'depth' tests against the depth maps, 'zbuffer' against the points themselves,
            'none' tests the frustum alone; 'auto' takes the depth maps where a scene has them
            and the points elsewhere.
        near, abs_tol, rel_tol, edge_reject: of the visibility test.
        instance_suffix: ending of 2D instance maps beside the colour images (mask-aware
            projection, needs superpoints), e.g. '.instance.png', see ``read_instance_map``.
        object_suffix: the same of the maps whose masks become ``pair_objects`` of the views.
        image_size: (H, W) that loaded images are squashed to; None keeps their size.
        allow_missing: a scene without any stored frame has no views, instead of being an error.
        max_lost: share of the data's frames that the store may lack; ``check_stored`` counts them.
        cache_bytes: pairs kept per process, about 80 KB per view of 4000 visible points.

    Raises:
        ValueError: an unknown setting; a scene of which the store has no frame.
        FileNotFoundError: no such store or image.
    """

    def __init__(
        self,
        clip_store: str | None = None,
        # which views, and what of them is left out
        num_views: int | None = None,
        select: str = 'even',
        candidates: int | None = 64,
        random_candidates: bool = False,
        view_dropout: float = 0.0,
        image_dropout: float = 0.0,
        hide: str | None = None,
        # what counts as visible
        occlusion: str = 'auto',
        near: float = Visibility.near,
        abs_tol: float = Visibility.abs_tol,
        rel_tol: float = Visibility.rel_tol,
        edge_reject: bool = False,
        instance_suffix: str | None = None,
        object_suffix: str | None = None,
        # content and memory
        image_size: Sequence[int] | None = None,
        allow_missing: bool = False,
        max_lost: float = 0.2,
        cache_bytes: int = 1 << 28,
    ) -> None:
        for name, value, known in (('select', select, SELECTIONS), ('hide', hide, HIDE)):
            if value not in known:
                raise ValueError(f'{name}: expected one of {known}, got {value!r}')
        for name, value in (('view_dropout', view_dropout), ('image_dropout', image_dropout)):
            if not 0 <= value <= 1:
                raise ValueError(f'{name} must be within 0…1, got {value}')
        if num_views is not None and num_views < 0:
            raise ValueError(f'num_views must not be negative, got {num_views}')
        if candidates is not None and candidates < 1:
            raise ValueError(f'candidates must be at least 1, got {candidates}')

        self.num_views = num_views
        self.select = select
        self.candidates = candidates
        self.random_candidates = random_candidates
        self.view_dropout = view_dropout
        self.image_dropout = image_dropout
        self.hide = hide
        self.object_suffix = object_suffix

        self.view_pairs = ViewPairs(
            Visibility(near, abs_tol, rel_tol, edge_reject),
            occlusion,
            instance_suffix,
            cache_bytes,
        )
        self.clip_store = clip_store
        self.image_size = None if image_size is None else image_sides(image_size)
        self.allow_missing = allow_missing
        self.rules = LossRules(max_lost=max_lost)
        self._store: FeatureStore | None = None

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Return ``results`` with ``views``."""
        scene: Scene = results['scene']
        superpoints = results.get('sp_pts_mask')
        points = original_points(results['points'], results['augmented_from_original'])

        frames = self._usable_frames(scene)
        if self.select == 'coverage':
            frames = self._covering(frames, points, superpoints)
        chosen, hide = self._draw(len(frames))
        frames = [frames[index] for index in chosen]

        content = self._content(scene, frames)
        if self.hide == 'pixels':
            content = {name: torch.zeros_like(value) for name, value in content.items()}
        camera = scene.cameras(frames)
        pairs = join_views(self.view_pairs(frames, points, superpoints))
        objects = None
        if self.object_suffix is not None:
            objects = pair_objects(frames, pairs, self.object_suffix)
        views = PosedViews(
            pairs=pairs,
            pair_objects=objects,
            world_from_cam=camera.world_from_cam,
            image_size=scene.image_size,
            num_points=len(points),
            scene_id=scene.name,
            frames=tuple(frame.name for frame in frames),
            intrinsics=camera.intrinsics if scene.images else None,
            pixels_masked=hide == 'pixels',
            **content,
        )
        return {**results, 'views': views}

    @property
    def store(self) -> FeatureStore | None:
        """The store, opened when it is first needed: configs are built without data, too."""
        if self._store is None and self.clip_store is not None:
            self._store = FeatureStore(self.clip_store)
        return self._store

    def check_stored(self, scenes: Iterable[Scene]) -> None:
        """Count the frames that the store lacks, before the first sample is loaded.

        Scenes without any are left to ``allow_missing``.

        Raises:
            ValueError: more than ``max_lost`` of the frames.
        """
        if self.store is None:
            return
        stored, num_frames = set(self.store.keys()), 0
        lost = LeftOut(str(self.clip_store), self.rules)
        for scene in scenes:
            absent = [f for f in scene.usable_frames if f'{scene.name}/{f.name}' not in stored]
            if len(absent) == len(scene.usable_frames) and self.allow_missing:
                continue
            num_frames += len(scene.usable_frames)
            for frame in absent:
                lost.add(f'{scene.name}/{frame.name}', 'not in the store')

        lost.check(num_frames)
        if lost:
            print_log(f'{self.clip_store}: {lost.describe()}', logger='current', level=30)

    def _usable_frames(self, scene: Scene) -> list[Frame]:
        """Frames with a rigid pose and, offline, with stored features."""
        usable = list(scene.usable_frames)
        if len(usable) < len(scene.frames):
            print_log(
                f'{scene.name}: {len(scene.frames) - len(usable)} images dropped, their poses are '
                'not rigid',
                logger='current',
                level=30,
            )
        if self.store is None:
            return usable

        stored = [frame for frame in usable if self.store.has(scene.name, frame.name)]
        if usable and not stored and not self.allow_missing:
            raise ValueError(
                f'{self.clip_store}: no features of scene {scene.name}, which has {len(usable)} '
                'images'
            )
        return stored

    def _draw(self, num_images: int) -> tuple[np.ndarray, str | None]:
        """Rows of the images that become views, in order, and what of them is masked."""
        count = num_images if self.num_views is None else min(self.num_views, num_images)
        if self.select == 'random':
            chosen = np.sort(np.random.choice(num_images, count, replace=False))
        elif self.select == 'even':
            chosen = evenly_spread(num_images, count)
        else:
            chosen = np.arange(count)

        if self.view_dropout:
            chosen = chosen[np.random.rand(len(chosen)) >= self.view_dropout]
        hide = self.hide
        if self.image_dropout and np.random.rand() < self.image_dropout:
            hide = hide or ('pixels' if np.random.rand() < 0.5 else 'views')
        return (chosen[:0] if hide == 'views' else chosen), hide

    def _covering(
        self, frames: list[Frame], points: Tensor, superpoints: np.ndarray | None
    ) -> list[Frame]:
        """The frames that together see most of the points, in their own order."""
        if self.candidates is not None and len(frames) > self.candidates:
            if self.random_candidates:
                rows = np.sort(np.random.choice(len(frames), self.candidates, replace=False))
            else:
                rows = evenly_spread(len(frames), self.candidates)
            frames = [frames[row] for row in rows]
        if self.num_views is None or len(frames) <= self.num_views:
            return frames

        pairs = self.view_pairs(frames, points, superpoints)
        chosen = greedy_coverage(pairs, len(points), self.num_views)
        return [frames[row] for row in sorted(chosen)]

    def _content(self, scene: Scene, frames: list[Frame]) -> dict[str, Tensor]:
        """``feat`` (frozen tokens) and ``clip_global`` of the store, or else ``images``."""
        if self.store is None:
            size = self.image_size or scene.image_size
            images = [read_image(frame.image_path, size, scene.image_size) for frame in frames]
            if not images:
                return {'images': torch.zeros(0, 3, *size, dtype=torch.uint8)}
            stacked = torch.from_numpy(np.stack(images))  # (V, H, W, 3)
            return {'images': stacked.permute(0, 3, 1, 2).contiguous()}  # (V, 3, H, W)

        return read_views(self.store, scene.name, [frame.name for frame in frames])


def image_sides(size: Sequence[int]) -> tuple[int, int]:
    """(H, W) as configs have it, a list perhaps."""
    height, width = size
    return height, width


def original_points(points: np.ndarray, augmented_from_original: np.ndarray) -> Tensor:
    """(N, 3) float32 coordinates before augmentation; exactly the points where there was none."""
    xyz = torch.from_numpy(np.ascontiguousarray(points[:, :3], dtype=np.float32))
    if np.array_equal(augmented_from_original, np.eye(4)):
        return xyz
    moved = torch.as_tensor(np.asarray(augmented_from_original), dtype=torch.float64)
    return transform_points(invert_pose(moved), xyz.double()).float()
