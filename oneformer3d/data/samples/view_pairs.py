"""Which points each view of a scene sees: worked out once for the same points, then remembered.

Enters: frames of a scene, points (N, 3) in original coordinates. Leaves: the visible
``PixelPairs`` of each view, or of all views together. V views, N points, P visible pairs.
"""

import zlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from oneformer3d.files.images import read_depth
from oneformer3d.files.instance_maps import read_instance_map
from oneformer3d.lifting.camera import Camera
from oneformer3d.lifting.depth_render import zbuffer_views
from oneformer3d.lifting.map_cache import MapCache
from oneformer3d.lifting.pairs import PixelPairs, project_pairs
from oneformer3d.lifting.shapes import size_of
from oneformer3d.lifting.visibility import Visibility, nearest_pixel

from ..scenes import Frame

OCCLUSION = ('auto', 'depth', 'zbuffer', 'none')
_ZBUFFER_WIDTH = 160  # cells of about 2 cm at arm's length: a 5 cm cloud leaves few gaps


class ViewPairs:
    """Visible pairs of single views.

    Args:
        visibility: tolerances of the depth test.
        occlusion: 'depth' tests against the depth maps, 'zbuffer' against the points themselves,
            'none' tests the frustum alone; 'auto' takes the depth maps where a scene has them
            and the points elsewhere.
        instance_suffix: ending of 2D instance maps beside the colour images (mask-aware
            projection, needs superpoints), e.g. '.instance.png', see ``read_instance_map``.
        cache_bytes: pairs kept, about 80 KB per view of 4000 visible points.
    """

    def __init__(
        self,
        visibility: Visibility,
        occlusion: str,
        instance_suffix: str | None,
        cache_bytes: int,
    ) -> None:
        if occlusion not in OCCLUSION:
            raise ValueError(f'occlusion: expected one of {OCCLUSION}, got {occlusion!r}')
        if cache_bytes < 0:
            raise ValueError(f'cache_bytes must not be negative, got {cache_bytes}')
        self.occlusion = occlusion
        self.visibility = visibility
        self.instance_suffix = instance_suffix
        self.cache = MapCache(cache_bytes)

    def __call__(
        self, frames: Sequence[Frame], points: Tensor, superpoints: np.ndarray | None = None
    ) -> list[PixelPairs]:
        """The pairs of each of V frames of one scene, every view numbered 0.

        Args:
            frames: of the scene.
            points: (N, 3) float32.
            superpoints: (N,) int64, for mask-aware projection.

        Raises:
            ValueError: depth maps or superpoints are needed and not there.
        """
        if not frames:
            return []
        cloud = (frames[0].scene.name, zlib.crc32(points.numpy().tobytes()))
        found = [self.cache.get((*cloud, frame.name)) for frame in frames]

        # project what is not known in one go: views share their depth maps' reading
        new = [frame for frame, pairs in zip(frames, found) if pairs is None]
        projected = iter(self._project(new, points, superpoints) if new else ())
        views = []
        for frame, known in zip(frames, found):
            pairs = PixelPairs(**known) if known is not None else next(projected)
            if known is None:
                self.cache.put((*cloud, frame.name), dict(vars(pairs)))
            views.append(pairs)
        return views

    def _project(
        self, frames: Sequence[Frame], points: Tensor, superpoints: np.ndarray | None
    ) -> list[PixelPairs]:
        """The pairs of each view, nothing remembered."""
        camera = frames[0].scene.cameras(frames)
        depth, depth_camera = self._depth(frames, camera, points)
        instance_maps = segments = None
        if self.instance_suffix is not None:
            instance_maps, segments = _instance_masks(frames, self.instance_suffix, superpoints)
        pairs = project_pairs(
            points,
            camera,
            depth,
            depth_camera=depth_camera,
            visibility=self.visibility,
            instance_maps=instance_maps,
            segments=segments,
        )

        # sorted by point so far; a stable sort by view keeps that order within a view
        order = torch.argsort(pairs.view, stable=True)  # (P,)
        counts = torch.bincount(pairs.view, minlength=len(frames)).tolist()
        columns = (pairs.point, torch.zeros_like(pairs.view), pairs.uv, pairs.depth_z)
        return [PixelPairs(*view) for view in zip(*(x[order].split(counts) for x in columns))]

    def _depth(
        self, frames: Sequence[Frame], camera: Camera, points: Tensor
    ) -> tuple[Tensor | None, Camera | None]:
        """Depth maps (V, h, w) to test against, with their own camera where it is another."""
        paths = [frame.beside(frame.depth_file) for frame in frames if frame.depth_file]
        with_depth = len(paths) == len(frames)
        occlusion = self.occlusion
        if occlusion == 'auto':
            occlusion = 'depth' if with_depth else 'zbuffer'
        if occlusion == 'none':
            return None, None

        if occlusion == 'zbuffer':
            height, width = camera.image_size
            size = (max(1, height * _ZBUFFER_WIDTH // width), _ZBUFFER_WIDTH)
            return zbuffer_views(points, camera.resize(size)), None

        if not with_depth:
            raise ValueError(f'{frames[0].scene.name}: images without depth maps')
        depth = np.stack([read_depth(path) for path in paths])  # (V, h, w)
        return torch.from_numpy(depth), frames[0].scene.depth_cameras(frames, size_of(depth))


def join_views(views: Sequence[PixelPairs]) -> PixelPairs:
    """Pairs of single views as the pairs of all of them, sorted by point, then by view."""
    if not views:
        empty = torch.zeros(0, dtype=torch.int64)
        return PixelPairs(empty, empty, torch.zeros(0, 2), torch.zeros(0))
    counts = torch.tensor([len(pairs) for pairs in views])
    view = torch.repeat_interleave(torch.arange(len(views)), counts)  # (P,)
    point = torch.cat([pairs.point for pairs in views])  # (P,)
    uv = torch.cat([pairs.uv for pairs in views])  # (P, 2)
    depth_z = torch.cat([pairs.depth_z for pairs in views])  # (P,)

    order = torch.argsort(point, stable=True)
    return PixelPairs(point[order], view[order], uv[order], depth_z[order])


def pair_objects(frames: Sequence[Frame], pairs: PixelPairs, suffix: str) -> Tensor:
    """The 2D object that each pair of V frames shows: (P,) int64, −1 for none.

    Ids differ between views: nobody knows which masks of two views are one object.

    Args:
        frames: V of one scene.
        pairs: P of these views.
        suffix: ending of the instance maps, see ``read_instance_map``.

    Raises:
        FileNotFoundError, ValueError: a map that is missing or cannot be read.
    """
    objects = torch.full_like(pairs.view, -1)
    first_id = 0
    for view, frame in enumerate(frames):
        ids = torch.from_numpy(read_instance_map(frame.label_path(suffix)))  # (h, w)
        of_view = pairs.view == view
        u, v = pairs.uv[of_view].unbind(-1)
        shown = nearest_pixel(ids, u, v, frame.scene.image_size)  # (P of the view,)
        objects[of_view] = torch.where(shown > 0, shown + first_id, -1)
        first_id += int(ids.max())
    return objects


def _instance_masks(
    frames: Sequence[Frame], suffix: str, superpoints: np.ndarray | None
) -> tuple[Tensor, Tensor]:
    """2D instances (V, h, w) and the points' superpoints (N,), as ``project_pairs`` takes them."""
    if superpoints is None:
        raise ValueError(f'{frames[0].scene.name}: mask-aware views need superpoints')
    maps = []
    for frame in frames:
        maps.append(read_instance_map(frame.label_path(suffix)))
    return torch.from_numpy(np.stack(maps)), torch.from_numpy(superpoints)
