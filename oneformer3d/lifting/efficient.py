"""Clouds of millions of points: lift in chunks under a byte budget, run every image once.

Enters: points (N, 3) in metres, images (V, 3, H, W) or feature maps, cameras, an aggregator.
Leaves: one feature (N, C) for every point, or the labels that a point network gives them. N points,
V views, C channels, P visible (point, view) pairs of a chunk.

Each image goes through the extractor once; its maps are kept in memory, the least recently used
going first, and in a store if one is handed over. Lifting and aggregation treat every point on its
own, so chunks change nothing; a z-buffer is drawn of the whole cloud before. The point network
looks at neighbours, so it runs once, on everything.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from .chunks import DEFAULT_BYTE_BUDGET, check_byte_budget, join, ranges
from .confidence import DECAY
from .depth_render import zbuffer_views
from .inputs import check_points, checked_views, feature_views
from .lift import gather_scales
from .map_cache import Key, MapCache, Maps, MapStore, from_arrays, image_digest, to_arrays
from .normals import estimate_normals
from .pair_aggregation import best_pairs, lift_pairs
from .pairs import visible_pairs
from .sampling import read_pairs
from .shapes import size_of
from .view_aggregator import ViewAggregator
from .visibility import Visibility

# Copies of a pair's features that are alive at once: read, regrouped, and inside an aggregator.
_COPIES = 6


class LiftingModel(Protocol):
    """What ``process_large_pointcloud`` needs of a network.

    Attributes:
        aggregator: of the views of a point.
        max_views: only the best views of a point count; None takes all.
        distance_decay: metres over which the confidence in a view falls to 1/e.
        normal_voxel: metres of the voxels that normals are estimated from; None leaves the
            viewing angle out of the confidence.
    """

    aggregator: ViewAggregator
    max_views: int | None
    distance_decay: float
    normal_voxel: float | None

    def extract_maps(self, images: Tensor) -> Mapping[str, Tensor]:
        """Images (B, 3, H, W) → name → (B, C, h, w)."""
        ...

    def classify_points(self, points: Tensor, features: Tensor) -> Tensor:
        """Points (N, ≥ 3) and aggregated features (N, C) → class scores (N, K)."""
        ...


class EfficientFeatureLifting:
    """Lifts and aggregates in chunks; keeps image features.

    Args:
        chunk_size: most points at a time.
        byte_budget: bytes for temporary values; a chunk is cut further where its pairs need it.
            The result, and the maps of the views at hand, come on top.
        cache_bytes: bytes of maps kept in memory; 0 keeps none.
        cache_dtype: floating point type in which maps are kept and handed out; None keeps theirs.
        store: where maps outlive the process; see ``MapStore``. It belongs to one extractor:
            open it with that one's stamp.
        image_batch: images that the extractor gets at a time.
        progress: show a bar on stderr, or be called with how many points are done and of how many.

    Raises:
        ValueError: sizes below 1 (``cache_bytes``: below 0).

    Example:
        >>> K = torch.tensor([[4.0, 0, 3.5], [0, 4, 2.5], [0, 0, 1]])
        >>> points = torch.tensor([[0.0, 0, 1], [0.5, 0, 1], [0, 0, -1]])
        >>> columns = torch.arange(8.0).expand(1, 6, 8)  # each pixel holds its column
        >>> lifting = EfficientFeatureLifting(chunk_size=2)
        >>> lifting.lift(points, {'column': columns}, K, torch.eye(4), (6, 8))
        tensor([[3.5000],
                [5.5000],
                [0.0000]])
    """

    def __init__(
        self,
        chunk_size: int = 10_000,
        byte_budget: int = DEFAULT_BYTE_BUDGET,
        *,
        cache_bytes: int = 1 << 30,
        cache_dtype: torch.dtype | None = None,
        store: MapStore | None = None,
        image_batch: int = 4,
        progress: bool | Callable[[int, int], None] = False,
    ) -> None:
        check_byte_budget(byte_budget)
        for name, value, least in (
            ('chunk_size', chunk_size, 1),
            ('cache_bytes', cache_bytes, 0),
            ('image_batch', image_batch, 1),
        ):
            if value < least:
                raise ValueError(f'{name} must be at least {least}, got {value}')

        self.chunk_size = chunk_size
        self.byte_budget = byte_budget
        self.image_batch = image_batch
        self.store = store
        self.feature_cache = MapCache(cache_bytes, cache_dtype)
        self._progress = progress

    @torch.no_grad()
    def process_large_pointcloud(
        self,
        points: Tensor,
        model: LiftingModel,
        camera_params: Sequence[tuple[Tensor, Tensor]],
        images: Sequence[Tensor] | Tensor,
        depth: Tensor | None = None,
        *,
        keys: Sequence[Key] | None = None,
        visibility: Visibility = Visibility(),
        depth_intrinsics: Tensor | None = None,
    ) -> Tensor:
        """Label every point of a cloud of any size, as the model labels the whole of a small one.

        Args:
            points: (N, ≥ 3), xyz in metres first; the model is given all columns.
            model: in evaluation mode; see ``LiftingModel``.
            camera_params: V pairs of intrinsics (3, 3) and camera-to-world pose (4, 4).
            images: V of (3, H, W) or (1, 3, H, W), as the model expects them.
            depth: (V, h, w) metres, or None.
            keys: as in ``image_features``.
            visibility: what counts as visible.
            depth_intrinsics: of the depth maps, where they are of a camera of their own.

        Returns:
            (N,) int64.

        Raises:
            ValueError: no views, another number of cameras than images, or as in ``lift``.
        """
        if len(camera_params) == 0 or len(camera_params) != len(images):
            raise ValueError(
                f'expected as many cameras as images and at least one, got {len(camera_params)} '
                f'and {len(images)}'
            )
        intrinsics, extrinsics = (torch.stack(list(x)) for x in zip(*camera_params))
        images = [x[0] if x.ndim == 4 and len(x) == 1 else x for x in images]
        image_shape = size_of(images[0])
        xyz, voxel = points[:, :3], model.normal_voxel

        maps = self.image_features(model.extract_maps, images, keys, owner=model)
        features = self.lift(
            xyz,
            maps,
            intrinsics,
            extrinsics,
            image_shape,
            depth,
            aggregate=model.aggregator,
            normals=None if voxel is None else estimate_normals(xyz, voxel),
            two_sided=True,
            decay=model.distance_decay,
            max_views=model.max_views,
            visibility=visibility,
            depth_intrinsics=depth_intrinsics,
        )
        if len(points) == 0:
            return torch.zeros(0, dtype=torch.int64, device=points.device)
        return model.classify_points(points, features).argmax(dim=1)

    @torch.no_grad()
    def image_features(
        self,
        extract: Callable[[Tensor], Mapping[str, Tensor]],
        images: Sequence[Tensor] | Tensor,
        keys: Sequence[Key] | None = None,
        owner: object = None,
    ) -> Maps:
        """Feature maps of images, each computed at most once.

        Maps in memory are those of one extractor at a time: another one, or the same module after
        its parameters changed, empties the cache.

        Args:
            extract: images (B, 3, H, W) → name → (B, C, h, w), every map of the whole image.
            images: V of (3, H, W), one size.
            keys: V of (scene, frame) that name the images; needed with a store. None tells images
                apart by their content.
            owner: what ``extract`` belongs to; None takes ``extract`` itself.

        Returns:
            Name → (V, C, h, w) on the images' device.

        Raises:
            ValueError: no images, or another number of keys.
        """
        if len(images) == 0:
            raise ValueError('no images')
        if keys is None and self.store is not None:
            raise ValueError('a store needs keys: (scene, frame) of every image')
        names = [image_digest(image) for image in images] if keys is None else list(keys)
        if len(names) != len(images):
            raise ValueError(f'{len(names)} keys for {len(images)} images')
        if owner is None:
            owner = extract.__self__ if inspect.ismethod(extract) else extract
        self.feature_cache.bind(owner)

        kept = {name: self._kept(name) for name in names}
        found = {name: maps for name, maps in kept.items() if maps is not None}
        missing = {
            name: image for name, image in zip(names, images) if name not in found
        }  # an image that comes twice is computed once
        for begin, end in ranges(len(missing), self.image_batch):
            batch = list(missing)[begin:end]
            maps = extract(torch.stack([missing[name] for name in batch]))
            for row, name in enumerate(batch):
                found[name] = self._keep(name, {key: x[row] for key, x in maps.items()})

        device = images[0].device
        return {
            key: torch.stack([found[name][key].to(device) for name in names])
            for key in found[names[0]]
        }

    @torch.no_grad()
    def lift(
        self,
        points: Tensor,
        features: Mapping[str, Tensor],
        # cameras
        intrinsics: Tensor,
        extrinsics: Tensor,
        image_shape: tuple[int, int],
        # what is visible
        depth: Tensor | None = None,
        *,
        depth_intrinsics: Tensor | None = None,
        visibility: Visibility = Visibility(),
        # how views are combined
        aggregate: ViewAggregator | None = None,
        normals: Tensor | None = None,
        two_sided: bool = False,
        decay: float = DECAY,
        max_views: int | None = None,
    ) -> Tensor:
        """Lift maps to the points and combine the views of each, a chunk at a time.

        The first eight arguments are those of ``lift_features_to_points``; a z-buffer is drawn of
        the whole cloud.

        Args:
            aggregate: a ``ViewAggregator`` in evaluation mode; None takes the mean weighted by
                the confidence, with zeros where no view sees a point.
            normals: (N, 3) unit, for the confidence; None leaves the viewing angle out.
            two_sided: the normals have no side, as those of ``estimate_normals``.
            decay: metres over which the confidence falls to 1/e.
            max_views: only the views of a point with the highest confidence; None takes all.

        Returns:
            (N, ΣC), or what ``aggregate`` makes of it.

        Raises:
            ValueError: as ``lift_features_to_points``.
        """
        points = check_points(points)
        views = checked_views(intrinsics, extrinsics, image_shape, depth, depth_intrinsics)
        camera = views.camera.to(points.device, points.dtype)
        maps = list(feature_views(features, len(views), views.single).values())
        maps = [x if x.dtype == torch.float64 else x.float() for x in maps]
        maps = [x.contiguous(memory_format=torch.channels_last) for x in maps]
        depth = views.depth
        if visibility.occlusion == 'zbuffer' and depth is None:
            depth = zbuffer_views(points, camera, visibility, self.byte_budget)
            visibility = replace(visibility, occlusion=None)

        # Half for the pairs, half for the points, of which many may have none.
        row_bytes = _COPIES * sum(x.shape[1] * x.element_size() for x in maps)
        most = max(1, self.byte_budget // 2 // row_bytes)
        read = partial(read_pairs, maps, image_size=camera.image_size)

        def chunks(advance: Callable[[int], object]) -> Iterator[Tensor]:
            for begin, end in ranges(max(1, len(points)), self.chunk_size):
                xyz = points[begin:end]
                pairs = visible_pairs(
                    xyz,
                    camera,
                    depth,
                    depth_camera=views.depth_camera,
                    visibility=visibility,
                    byte_budget=self.byte_budget,
                )

                # read the best views of each point and combine them
                facing = None if normals is None else normals[begin:end]
                pairs, confidence = best_pairs(
                    xyz, pairs, camera.world_from_cam, facing, decay, two_sided, max_views
                )
                if aggregate is None:
                    weights = [confidence] * len(maps)
                    rows, _ = gather_scales(
                        maps, pairs, camera.image_size, weights, len(xyz), 'mean', 'concat',
                        self.byte_budget,
                    )  # fmt: skip
                else:
                    rows, _ = lift_pairs(
                        read, aggregate, pairs, confidence, xyz, max_points=most, max_pairs=most
                    )
                advance(len(xyz))
                yield rows

        with self._bar(len(points)) as advance:
            return join(chunks(advance), len(points))

    def _kept(self, name: Key | str) -> Maps | None:
        """Maps of an image from memory or the store, or None; a digest is in no store."""
        maps = self.feature_cache.get(name)
        if maps is not None or self.store is None or isinstance(name, str):
            return maps
        if not self.store.has(*name):
            return None
        maps = from_arrays(self.store.get(*name), self.store.stamp.shuffle_factor)
        self.feature_cache.put(name, maps)
        return maps

    def _keep(self, name: Key | str, maps: Mapping[str, Tensor]) -> Maps:
        """Keep maps in memory and in the store; returned as they are kept."""
        stored = self.feature_cache.stored(maps)
        self.feature_cache.put(name, stored)
        if self.store is not None and not isinstance(name, str):
            self.store.put(*name, to_arrays(stored, self.store.stamp.shuffle_factor))
        return stored

    @contextmanager
    def _bar(self, total: int) -> Iterator[Callable[[int], object]]:
        """Gives a function to call with the number of points that are done."""
        progress = self._progress
        if callable(progress):
            done = 0

            def advance(count: int) -> None:
                nonlocal done
                done += count
                progress(done, total)

            yield advance
        elif progress:
            from tqdm import tqdm  # only for those who want to look at it

            with tqdm(total=total, desc='lifting', unit='point', unit_scale=True) as bar:
                yield bar.update
        else:
            yield lambda count: None
