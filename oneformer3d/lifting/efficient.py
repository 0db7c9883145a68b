"""Clouds of millions of points: lift in chunks under a byte budget, look at every image once.

Enters: points (N, 3) in metres, images (V, 3, H, W) or feature maps, cameras, an aggregator.
Leaves: one feature (N, C) for every point, or the labels that a point network gives them. N points,
V views, C channels, P visible (point, view) pairs of a chunk.

Each image goes through the extractor once; its maps are kept in memory, the least recently used
going first, and in a store if one is handed over. Lifting and aggregation treat every point on its
own, so chunks change nothing; a z-buffer is drawn of the whole cloud before. The point network
looks at neighbours, so it runs once, on everything.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor

from .camera import Camera
from .chunks import DEFAULT_BYTE_BUDGET, check_byte_budget, join, ranges
from .confidence import DECAY
from .inputs import camera_views, check_points, depth_views, feature_views, own_depth_camera
from .map_cache import Key, MapCache, Maps, MapStore, from_arrays, image_digest, to_arrays
from .normals import estimate_normals
from .pair_aggregation import aggregate_pairs, pair_confidence, strongest_pairs
from .pairs import PixelPairs, visible_pairs, zbuffer_views
from .sampling import bag_pieces, bag_starts, gather_pairs
from .visibility import Visibility

# Copies of a pair's features that are alive at once: read, regrouped, and inside an aggregator.
_COPIES = 6


class LiftingModel(Protocol):
    """What ``process_large_pointcloud`` needs of a network."""

    aggregator: Callable[..., Tensor]

    def extract_maps(self, images: Tensor) -> Mapping[str, Tensor]:
        """Images (B, 3, H, W) → name → (B, C, h, w)."""

    def classify_points(self, points: Tensor, features: Tensor) -> Tensor:
        """Points (N, ≥ 3) and aggregated features (N, C) → class scores (N, K)."""


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
        self.cache = MapCache(cache_bytes, cache_dtype)
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
        **options: Any,
    ) -> Tensor:
        """Label every point of a cloud of any size.

        Args:
            points: (N, ≥ 3), xyz in metres first; the model is given all columns.
            model: in evaluation mode; see ``LiftingModel``.
            camera_params: V pairs of intrinsics (3, 3) and camera-to-world pose (4, 4).
            images: V of (3, H, W), as the model expects them.
            depth: (V, h, w) metres, or None.
            keys: as in ``image_features``.
            **options: of ``lift``: normals, decay, visibility and so on. What the
                model says itself (``max_views``, ``distance_decay``, ``normal_voxel``) is the
                default, so that the labels are those it gives the whole cloud.

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
        image_shape = tuple(images[0].shape[-2:])
        options = {**_model_options(model, points[:, :3]), **options}
        maps = self.image_features(model.extract_maps, images, keys, owner=model)
        features = self.lift(
            points[:, :3], maps, intrinsics, extrinsics, image_shape, depth,
            aggregate=model.aggregator, **options,
        )  # fmt: skip
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
        self.cache.belong_to(extract if owner is None else owner)
        found: dict[Any, Maps] = {}
        missing: dict[Any, Tensor] = {}
        for name, image in zip(names, images):
            kept = self._look_up(name)
            if kept is None:
                missing.setdefault(name, image)
            else:
                found[name] = kept
        for begin, end in ranges(len(missing), self.image_batch):
            batch = list(missing)[begin:end]
            maps = extract(torch.stack([missing[name] for name in batch]))
            for row, name in enumerate(batch):
                found[name] = self.cache.stored({key: x[row] for key, x in maps.items()})
                self._keep(name, found[name])
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
        intrinsics: Tensor,
        extrinsics: Tensor,
        image_shape: tuple[int, int],
        depth: Tensor | None = None,
        *,
        aggregate: Callable[..., Tensor] | None = None,
        normals: Tensor | None = None,
        two_sided: bool = False,
        decay: float = DECAY,
        max_views: int | None = None,
        visibility: Visibility = Visibility(),
        depth_intrinsics: Tensor | None = None,
    ) -> Tensor:
        """Lift maps to the points and combine the views of each, a chunk at a time.

        Args:
            points: (N, 3) metres.
            features: name → (V, C, h, w), or (C, h, w) of one view.
            intrinsics: (3, 3) or (V, 3, 3) of the image.
            extrinsics: (4, 4) or (V, 4, 4) camera to world.
            image_shape: (H, W).
            depth: (V, h, w) metres, or None.
            aggregate: a ``ViewAggregator`` in evaluation mode; None takes the mean weighted by
                the confidence, with zeros where no view sees a point.
            normals: (N, 3) unit, for the confidence; None leaves the viewing angle out.
            two_sided: the normals have no side, as those of ``estimate_normals``.
            decay: metres over which the confidence falls to 1/e.
            max_views: only the views of a point with the highest confidence; None takes all.
            visibility: what counts as visible; a z-buffer is drawn of the whole cloud.
            depth_intrinsics: of the depth maps, where they are of a camera of their own.

        Returns:
            (N, ΣC), or what ``aggregate`` makes of it.

        Raises:
            ValueError: as ``lift_features_to_points``.
        """
        points = check_points(points)
        camera, single = camera_views(intrinsics, extrinsics, image_shape)
        camera = camera.to(points.device, points.dtype)
        maps = list(feature_views(features, camera.batch_shape[0], single).values())
        maps = [x.float() if x.dtype != torch.float64 else x for x in maps]
        maps = [x.contiguous(memory_format=torch.channels_last) for x in maps]
        depth = depth_views(depth, camera.batch_shape[0], single)
        depth_camera = own_depth_camera(depth, depth_intrinsics, extrinsics)
        if visibility.occlusion == 'zbuffer' and depth is None:
            depth = zbuffer_views(points, camera, visibility, self.byte_budget)
            visibility = replace(visibility, occlusion=None)

        def chunks(advance: Callable[[int], None]) -> Iterator[Tensor]:
            for begin, end in ranges(max(1, len(points)), self.chunk_size):
                part = points[begin:end]
                pairs = visible_pairs(
                    part,
                    camera,
                    depth,
                    depth_camera=depth_camera,
                    visibility=visibility,
                    byte_budget=self.byte_budget,
                )
                part_normals = None if normals is None else normals[begin:end]
                confidence = pair_confidence(
                    part, pairs, camera.world_from_cam, part_normals, decay, two_sided
                )
                if max_views is not None:
                    order = strongest_pairs(pairs.point, confidence, max_views)
                    pairs, confidence = pairs.select(order), confidence[order]
                if aggregate is None:
                    rows = self._mean(maps, pairs, camera, confidence, len(part))
                else:
                    rows = self._aggregated(maps, pairs, camera, confidence, part, aggregate)
                advance(len(part))
                yield rows

        with self._bar(len(points)) as advance:
            return join(chunks(advance), len(points))

    def _mean(
        self,
        maps: list[Tensor],
        pairs: PixelPairs,
        camera: Camera,
        confidence: Tensor,
        num_points: int,
    ) -> Tensor:
        rows = [
            gather_pairs(
                x, pairs, camera.image_size, confidence, num_points, 'mean', self.byte_budget
            )[0]
            for x in maps
        ]
        return rows[0] if len(rows) == 1 else torch.cat(rows, dim=1)

    def _aggregated(
        self,
        maps: list[Tensor],
        pairs: PixelPairs,
        camera: Camera,
        confidence: Tensor,
        points: Tensor,
        aggregate: Callable[..., Tensor],
    ) -> Tensor:
        """One chunk, cut where the features of its pairs do not fit the budget."""
        row_bytes = _COPIES * sum(x.shape[1] * x.element_size() for x in maps)
        # Half for the pairs, half for the points, of which many may have none.
        most = max(1, self.byte_budget // 2 // row_bytes)
        starts = bag_starts(pairs.point, len(points))
        pieces = bag_pieces(starts, most, most)
        if not pieces:  # an empty cloud
            return maps[0].new_zeros(0, sum(x.shape[1] for x in maps))

        def combined(begin: int, end: int, first: int, last: int) -> Tensor:
            some = pairs.select(slice(first, last))
            rows = [gather_pairs(x, some, camera.image_size, reduce=None)[0] for x in maps]
            return aggregate_pairs(
                aggregate,
                rows[0] if len(rows) == 1 else torch.cat(rows, dim=1),
                some.point - begin,
                end - begin,
                confidence[first:last],
                some.view,
                points[begin:end],
            )

        return join((combined(*piece) for piece in pieces), len(points))

    def _look_up(self, name: Any) -> Maps | None:
        kept = self.cache.get(name)
        if kept is not None or self.store is None or not self.store.has(*name):
            return kept
        kept = from_arrays(self.store.get(*name))
        self.cache.put(name, kept)
        return kept

    def _keep(self, name: Any, maps: Maps) -> None:
        self.cache.put(name, maps)
        if self.store is not None:
            self.store.put(*name, to_arrays(maps))

    @contextmanager
    def _bar(self, total: int) -> Iterator[Callable[[int], None]]:
        """Gives a function to call with the number of points that are done."""
        if callable(self._progress):
            done = 0

            def advance(count: int) -> None:
                nonlocal done
                done += count
                self._progress(done, total)

            yield advance
        elif self._progress:
            from tqdm import tqdm  # only for those who want to look at it

            with tqdm(total=total, desc='lifting', unit='point', unit_scale=True) as bar:
                yield bar.update
        else:
            yield lambda count: None


def _model_options(model: LiftingModel, points: Tensor) -> dict[str, Any]:
    """Options of ``lift`` that a model brings along."""
    options: dict[str, Any] = {'max_views': getattr(model, 'max_views', None)}
    if getattr(model, 'distance_decay', None) is not None:
        options['decay'] = model.distance_decay
    if getattr(model, 'normal_voxel', None) is not None:
        options |= {'normals': estimate_normals(points, model.normal_voxel), 'two_sided': True}
    return options
