"""Images of a loaded scene → ``PosedViews``: features, poses and pixel-point pairs.

Enters: ``results`` with points (N, 6), augmented_from_original (4, 4) and what the infos say of the
images. Leaves: ``results`` with ``views``, all of it in original coordinates, so that it does not
matter what augmentation does to the points before or after. V views, N points, P visible pairs.

Dense features come from a feature store; without one the images themselves are loaded, for an
encoder that runs CLIP. Which points a view sees depends on scan and camera alone, so it is worked
out once and kept, up to a number of bytes in each process.
"""

import zlib
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.logging import print_log
from torch import Tensor

from oneformer3d.files.images import read_depth, read_image
from oneformer3d.files.names import resolve_in_root
from oneformer3d.lifting.camera import Camera, invert_pose, is_valid_pose, transform_points
from oneformer3d.lifting.pairs import PixelPairs, project_pairs, zbuffer_views
from oneformer3d.lifting.visibility import Visibility
from oneformer3d.registry import TRANSFORMS
from oneformer3d.store.reader import FeatureStore, open_store
from oneformer3d.structures import PosedViews

from .view_selection import greedy_coverage

SELECTIONS = ('random', 'even', 'first', 'coverage')
HIDDEN = (None, 'pixels', 'views')
_ZBUFFER_WIDTH = 160  # cells of about 2 cm at arm's length: a 5 cm cloud leaves few gaps


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
            times its pixels are hidden, poses and visibility stay; else it has no views.
        hide: for ablations, hide the 'pixels' or leave out the 'views' of every sample.
        occlusion: 'depth' tests against the depth maps, 'zbuffer' against the points themselves,
            'none' tests the frustum alone; 'auto' takes the depth maps where a scene has them
            and the points elsewhere.
        near, abs_tol, rel_tol, edge_reject: of the visibility test.
        instance_suffix: ending of 2D instance images beside the colour images (mask-aware
            projection, needs superpoints), e.g. '.instance.png'.
        image_size: (H, W) that loaded images are squashed to; None keeps their size.
        allow_missing: a scene without any stored frame has no views, instead of being an error.
        cache_bytes: pairs kept per process, about 80 KB per view of 4000 visible points.

    Raises:
        ValueError: an unknown setting; a scene of which the store has no frame.
        FileNotFoundError: no such store or image.
    """

    def __init__(
        self,
        clip_store: str | None = None,
        num_views: int | None = None,
        select: str = 'even',
        candidates: int | None = 64,
        random_candidates: bool = False,
        view_dropout: float = 0.0,
        image_dropout: float = 0.0,
        hide: str | None = None,
        occlusion: str = 'auto',
        near: float = Visibility.near,
        abs_tol: float = Visibility.abs_tol,
        rel_tol: float = Visibility.rel_tol,
        edge_reject: bool = False,
        instance_suffix: str | None = None,
        image_size: Sequence[int] | None = None,
        allow_missing: bool = False,
        cache_bytes: int = 1 << 28,
    ) -> None:
        for name, value, known in (
            ('select', select, SELECTIONS),
            ('hide', hide, HIDDEN),
            ('occlusion', occlusion, ('auto', 'depth', 'zbuffer', 'none')),
        ):
            if value not in known:
                raise ValueError(f'{name}: expected one of {known}, got {value!r}')
        for name, value in (('view_dropout', view_dropout), ('image_dropout', image_dropout)):
            if not 0 <= value <= 1:
                raise ValueError(f'{name} must be within 0…1, got {value}')
        if num_views is not None and num_views < 0:
            raise ValueError(f'num_views must not be negative, got {num_views}')
        self.clip_store = clip_store
        self.num_views = num_views
        if candidates is not None and candidates < 1:
            raise ValueError(f'candidates must be at least 1, got {candidates}')
        self.select = select
        self.candidates = candidates
        self.random_candidates = random_candidates
        self.view_dropout = view_dropout
        self.image_dropout = image_dropout
        self.hide = hide
        self.occlusion = occlusion
        self.visibility = Visibility(near, abs_tol, rel_tol, edge_reject)
        self.instance_suffix = instance_suffix
        self.image_size = None if image_size is None else tuple(image_size)
        self.allow_missing = allow_missing
        self.cache = PairCache(cache_bytes)
        self._store: FeatureStore | None = None

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Return ``results`` with ``views``."""
        images = self._usable_images(results)
        points = original_points(results['points'], results['augmented_from_original'])
        if self.select == 'coverage':
            images = self._covering(results, images, points)
        chosen, hide = self._draw(len(images))
        images = [images[index] for index in chosen]
        content = self._content(results, images)
        if hide == 'pixels' and self.hide == 'pixels':
            content = {name: torch.zeros_like(value) for name, value in content.items()}
        views = PosedViews(
            pairs=self._pairs(results, images, points),
            world_from_cam=_poses(images),
            image_size=tuple(results.get('image_size') or (1, 1)),
            num_points=len(points),
            scene_id=results.get('scene_id', ''),
            frames=tuple(image['frame'] for image in images),
            intrinsics=_intrinsics(results),
            pixels_masked=hide == 'pixels',
            **content,
        )
        return {**results, 'views': views}

    @property
    def store(self) -> FeatureStore | None:
        """The store, opened when it is first needed: configs are built without data, too."""
        if self._store is None and self.clip_store is not None:
            self._store = open_store(self.clip_store)
        return self._store

    def _usable_images(self, results: dict[str, Any]) -> list[dict[str, Any]]:
        """Images with a rigid pose and, offline, with stored features."""
        scene, images = results.get('scene_id', ''), results.get('images', [])
        usable = [
            image
            for image in images
            if is_valid_pose(torch.as_tensor(image['world_from_cam'], dtype=torch.float64))
        ]
        if len(usable) < len(images):
            print_log(
                f'{scene}: {len(images) - len(usable)} images dropped, their poses are not rigid',
                logger='current',
                level=30,
            )
        if self.store is None:
            return usable
        stored = [image for image in usable if self.store.has(scene, image['frame'])]
        if usable and not stored and not self.allow_missing:
            raise ValueError(
                f'{self.clip_store}: no features of scene {scene}, which has {len(usable)} images'
            )
        return stored

    def _draw(self, num_images: int) -> tuple[np.ndarray, str | None]:
        """Which images become views, in order, and what is hidden."""
        count = num_images if self.num_views is None else min(self.num_views, num_images)
        if self.select == 'random':
            chosen = np.sort(np.random.choice(num_images, count, replace=False))
        elif self.select == 'even' and count:
            chosen = _evenly(num_images, count)
        else:
            chosen = np.arange(count)
        if self.view_dropout:
            chosen = chosen[np.random.rand(len(chosen)) >= self.view_dropout]
        hide = self.hide
        if self.image_dropout and np.random.rand() < self.image_dropout:
            hide = hide or ('pixels' if np.random.rand() < 0.5 else 'views')
        return (chosen[:0] if hide == 'views' else chosen), hide

    def _covering(
        self, results: dict[str, Any], images: list[dict], points: Tensor
    ) -> list[dict[str, Any]]:
        """The images that see most of the points, in their own order."""
        if self.candidates is not None and len(images) > self.candidates:
            if self.random_candidates:
                kept = np.sort(np.random.choice(len(images), self.candidates, replace=False))
            else:
                kept = _evenly(len(images), self.candidates)
            images = [images[index] for index in kept]
        if self.num_views is None or len(images) <= self.num_views:
            return images
        pairs = self._view_pairs(results, images, points)
        chosen = greedy_coverage(pairs, len(points), self.num_views)
        return [images[index] for index in sorted(chosen)]

    def _content(self, results: dict[str, Any], images: list[dict]) -> dict[str, Tensor]:
        """``feat`` and ``clip_global`` of the store, or else ``images``."""
        if self.store is None:
            size = tuple(results.get('image_size') or (1, 1))
            loaded = [
                read_image(
                    resolve_in_root(results['img_prefix'], image['img_path']),
                    self.image_size or size,
                    size,
                )
                for image in images
            ]
            if not loaded:
                return {'images': torch.zeros(0, 3, *(self.image_size or size), dtype=torch.uint8)}
            return {'images': torch.from_numpy(np.stack(loaded)).permute(0, 3, 1, 2).contiguous()}
        records = [self.store.get(results['scene_id'], image['frame']) for image in images]
        if not records:
            stamp = self.store.stamp
            return {'feat': torch.zeros(0, stamp.channels, *(stamp.grid or (1, 1)))}
        names = [name for name in ('feat', 'clip_global') if name in records[0]]
        return {n: torch.from_numpy(np.stack([record[n] for record in records])) for n in names}

    def _pairs(self, results: dict[str, Any], images: list[dict], points: Tensor) -> PixelPairs:
        """Visible pairs of these views."""
        return join_views(self._view_pairs(results, images, points))

    def _view_pairs(
        self, results: dict[str, Any], images: list[dict], points: Tensor
    ) -> list[PixelPairs]:
        """The pairs of each view, numbered 0, from the cache where they are known."""
        scene = results.get('scene_id', '')
        cloud = (scene, zlib.crc32(points.numpy().tobytes()))
        found = {image['frame']: self.cache.get((*cloud, image['frame'])) for image in images}
        new = [image for image in images if found[image['frame']] is None]
        if new:
            for image, pairs in zip(new, self._project(results, new, points)):
                found[image['frame']] = pairs
                self.cache.put((*cloud, image['frame']), pairs)
        return [found[image['frame']] for image in images]

    def _project(self, results: dict[str, Any], images: list[dict], points: Tensor) -> list:
        """The pairs of each of these views, every view numbered 0."""
        for key in ('cam2img', 'image_size'):
            if results.get(key) is None:
                raise ValueError(f'{results.get("scene_id")}: has images, but no {key}')
        camera = _camera(results['cam2img'], images, results['image_size'])
        depth, depth_camera = self._depth(results, images, camera, points)
        masks = {}
        if self.instance_suffix is not None:
            masks = self._instance_masks(results, images)
        pairs = project_pairs(
            points,
            camera,
            depth,
            depth_camera=depth_camera,
            visibility=self.visibility,
            **masks,
        )
        order = torch.argsort(pairs.view, stable=True)
        counts = torch.bincount(pairs.view, minlength=len(images)).tolist()
        columns = (pairs.point, torch.zeros_like(pairs.view), pairs.uv, pairs.depth_z)
        return [PixelPairs(*parts) for parts in zip(*(x[order].split(counts) for x in columns))]

    def _depth(
        self, results: dict[str, Any], images: list[dict], camera: Camera, points: Tensor
    ) -> tuple[Tensor | None, Camera | None]:
        """Depth maps to test against, with their own camera where it is another."""
        with_depth = all(image.get('depth_path') for image in images)
        how = self.occlusion
        if how == 'auto':
            how = 'depth' if with_depth else 'zbuffer'
        if how == 'none':
            return None, None
        if how == 'zbuffer':
            height, width = camera.image_size
            return zbuffer_views(
                points, camera.resize((max(1, height * _ZBUFFER_WIDTH // width), _ZBUFFER_WIDTH))
            ), None
        if not with_depth:
            raise ValueError(f'{results.get("scene_id")}: images without depth maps')
        maps = [read_depth(resolve_in_root(results['img_prefix'], i['depth_path'])) for i in images]
        depth = torch.from_numpy(np.stack(maps))
        if results.get('depth2img') is None:
            return depth, None
        return depth, _camera(results['depth2img'], images, depth.shape[1:])

    def _instance_masks(self, results: dict[str, Any], images: list[dict]) -> dict[str, Tensor]:
        if 'sp_pts_mask' not in results:
            raise ValueError(f'{results.get("scene_id")}: mask-aware views need superpoints')
        maps = []
        for image in images:
            name = str(PurePosixPath(image['img_path']).with_suffix('')) + self.instance_suffix
            path = resolve_in_root(results['img_prefix'], name)
            ids = cv2.imread(str(path), cv2.IMREAD_UNCHANGED) if path.is_file() else None
            if ids is None or ids.ndim != 2:
                raise ValueError(f'{path}: not an image of instance ids')
            maps.append(ids.astype(np.int64))
        return {
            'instance_maps': torch.from_numpy(np.stack(maps)),
            'segments': torch.from_numpy(results['sp_pts_mask']),
        }


class PairCache:
    """The least recently used entries go first; entries are the pairs of one view."""

    def __init__(self, max_bytes: int) -> None:
        if max_bytes < 0:
            raise ValueError(f'cache_bytes must not be negative, got {max_bytes}')
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self._entries: OrderedDict[tuple, PixelPairs] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: tuple) -> PixelPairs | None:
        """The pairs under a key, None where there are none."""
        if key in self._entries:
            self._entries.move_to_end(key)
        return self._entries.get(key)

    def put(self, key: tuple, pairs: PixelPairs) -> None:
        """Keep pairs that are not there yet."""
        self._entries[key] = pairs
        self.num_bytes += _num_bytes(pairs)
        while self.num_bytes > self.max_bytes:
            self.num_bytes -= _num_bytes(self._entries.popitem(last=False)[1])


def join_views(views: Sequence[PixelPairs]) -> PixelPairs:
    """Pairs of single views as the pairs of all of them, sorted by point, then by view."""
    if not views:
        empty = torch.zeros(0, dtype=torch.int64)
        return PixelPairs(empty, empty, torch.zeros(0, 2), torch.zeros(0))
    view = torch.repeat_interleave(
        torch.arange(len(views)), torch.tensor([len(pairs) for pairs in views])
    )
    point = torch.cat([pairs.point for pairs in views])
    order = torch.argsort(point, stable=True)
    uv = torch.cat([pairs.uv for pairs in views])
    depth_z = torch.cat([pairs.depth_z for pairs in views])
    return PixelPairs(point[order], view[order], uv[order], depth_z[order])


def original_points(points: np.ndarray, augmented_from_original: np.ndarray) -> Tensor:
    """(N, 3) float32 coordinates before augmentation; exactly the points where there was none."""
    xyz = torch.from_numpy(np.ascontiguousarray(points[:, :3], dtype=np.float32))
    if np.array_equal(augmented_from_original, np.eye(4)):
        return xyz
    moved = torch.as_tensor(np.asarray(augmented_from_original), dtype=torch.float64)
    return transform_points(invert_pose(moved), xyz.double()).float()


def _evenly(num_images: int, count: int) -> np.ndarray:
    return np.linspace(0, num_images - 1, count).round().astype(np.int64)


def _intrinsics(results: dict[str, Any]) -> Tensor | None:
    """(3, 3) of the colour images, None where they are not told."""
    given = results.get('cam2img')
    return None if given is None else torch.as_tensor(np.asarray(given, dtype=np.float32)[:3, :3])


def _camera(intrinsics: Any, images: list[dict], size: Sequence[int]) -> Camera:
    return Camera(
        torch.as_tensor(np.asarray(intrinsics, dtype=np.float32)),
        _poses(images),
        tuple(int(side) for side in size),
    )


def _poses(images: list[dict]) -> Tensor:
    """(V, 4, 4) float32."""
    poses = np.asarray([image['world_from_cam'] for image in images], dtype=np.float32)
    return torch.from_numpy(poses.reshape(-1, 4, 4))


def _num_bytes(pairs: PixelPairs) -> int:
    tensors = (pairs.point, pairs.view, pairs.uv, pairs.depth_z)
    return sum(x.numel() * x.element_size() for x in tensors)
