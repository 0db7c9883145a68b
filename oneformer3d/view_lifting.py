"""Views of a batch → one aggregated image feature per point: the front half of MVPNet.

Enters: xyz of the points of each sample, ``PosedViews`` with images (or with stored maps), a
``FeaturePyramid`` and a ``ViewAggregator``. Leaves: ``LiftedPoints``. P pairs of a sample.

    images → pyramid → map (1/4) ─ read at the P pairs ─ aggregator ─ (N, C)
    points, poses → pairs, confidence (distance) ──────────┘

Maps of a frozen pyramid do not change, so they are computed once and kept: in memory, up to a
number of bytes, or in a feature store that later runs with the same weights read again.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from mmengine.dist import get_rank
from torch import Tensor

from .backbones.fpn import FeaturePyramid, ImageMaps
from .clip.store import FeatureStoreWriter
from .clip.store_format import StoreStamp
from .clip.weights import weights_digest
from .lifting.aggregation import ViewAggregator
from .lifting.map_cache import Key, MapCache
from .lifting.normals import estimate_normals
from .lifting.pair_aggregation import (
    DECAY,
    aggregate_pairs,
    original_coordinates,
    pair_agreement,
    pair_confidence,
    strongest_pairs,
)
from .lifting.pairs import PixelPairs
from .lifting.sampling import gather_pairs
from .structures import PosedViews

_BATCH = 8  # images at a time where no gradient is needed


@dataclass(frozen=True)
class LiftedPoints:
    """What points see.

    Attributes:
        features: (sum N, C), the aggregator's token where not seen.
        seen: (sum N,) bool.
        agreement: (sum N,) in [0, 1], how far the views of a point show the same (see
            ``view_agreement``), 0 where not seen; None unless asked for.
    """

    features: Tensor
    seen: Tensor
    agreement: Tensor | None = None


MapsOf = Callable[[PosedViews], ImageMaps]


def lift_views(
    maps_of: MapsOf,
    aggregator: ViewAggregator,
    points: Sequence[Tensor],
    views: Sequence[PosedViews | None],
    max_views: int | None = None,
    decay: float = DECAY,
    chunk_size: int | None = None,
    normal_voxel: float | None = None,
    with_agreement: bool = False,
) -> LiftedPoints:
    """Lift the images of each sample to its points.

    Args:
        maps_of: maps of the images of a sample.
        aggregator: of the views of a point.
        points: per sample (N, ≥ 3), as augmentation left them.
        views: per sample, with pairs of these points; None for no views.
        max_views: only the nearest views of a point.
        decay: metres over which the confidence falls to 1/e.
        chunk_size: points at a time where no gradient is needed.
        normal_voxel: metres of the voxels that normals are estimated from, and the confidence
            then also falls with the viewing angle; None leaves the angle out.
        with_agreement: also tell how far the views of a point agree.

    Raises:
        ValueError: views of other points, or without images.
    """
    if len(points) != len(views):
        raise ValueError(f'{len(points)} point clouds but {len(views)} views')
    features, seen, agreement = [], [], []
    for i, (sample, sample_views) in enumerate(zip(points, views)):
        num_points = len(sample)
        valid = torch.zeros(num_points, dtype=torch.bool, device=sample.device)
        if sample_views is None or len(sample_views.pairs) == 0:
            features.append(aggregator.no_view.expand(num_points, -1))
            seen.append(valid)
            agreement.append(sample.new_zeros(num_points))
            continue
        if sample_views.num_points != num_points:
            raise ValueError(
                f'sample {i}: views of {sample_views.num_points} points, got {num_points}'
            )
        maps = maps_of(sample_views)
        xyz = original_coordinates(sample[:, :3], sample_views.augmented_from_original)
        pairs, confidence = trusted_pairs(xyz, sample_views, max_views, decay, normal_voxel)
        size = num_points if torch.is_grad_enabled() else chunk_size or num_points
        pieces = []
        for begin in range(0, num_points, size):
            end = min(begin + size, num_points)
            limits = torch.tensor([begin, end], device=sample.device)
            first, last = torch.searchsorted(pairs.point, limits).tolist()
            some = pairs.select(slice(first, last))
            rows, weights = read_maps(maps, some, sample_views), confidence[first:last]
            point, count = some.point - begin, end - begin
            pieces.append(
                aggregate_pairs(aggregator, rows, point, count, weights, some.view, xyz[begin:end])
            )
            if with_agreement:
                agreement.append(pair_agreement(rows, point, count, weights))
        features.append(torch.cat(pieces))
        seen.append(valid.index_fill(0, pairs.point, True))
    agreed = torch.cat(agreement) if with_agreement else None
    return LiftedPoints(torch.cat(features), torch.cat(seen), agreed)


def trusted_pairs(
    xyz: Tensor,
    views: PosedViews,
    max_views: int | None = None,
    decay: float = DECAY,
    normal_voxel: float | None = None,
) -> tuple[PixelPairs, Tensor]:
    """The pairs whose features are read, sorted by point, the best first, and their confidence.

    Args:
        xyz: (N, 3) metres, before augmentation.
        views: with pairs of these points.
        max_views: only the best views of a point.
        decay: metres.
        normal_voxel: as in ``lift_views``.
    """
    normals = None if normal_voxel is None else estimate_normals(xyz, normal_voxel)
    confidence = pair_confidence(
        xyz, views.pairs, views.world_from_cam, normals, decay, two_sided=True
    )
    order = strongest_pairs(views.pairs.point, confidence, max_views)
    return views.pairs.select(order), confidence[order]


def read_maps(maps: ImageMaps, pairs: PixelPairs, views: PosedViews) -> Tensor:
    """Features (P, ΣC) of the pairs, all maps side by side; zeros where pixels are hidden."""
    if views.pixels_hidden:
        return maps.maps[0].new_zeros(len(pairs), maps.num_channels)
    pairs = image_pixels(pairs, views)
    rows = [gather_pairs(x, pairs, maps.covered, reduce=None)[0] for x in maps.maps]
    return rows[0] if len(rows) == 1 else torch.cat(rows, dim=1)


def image_pixels(pairs: PixelPairs, views: PosedViews) -> PixelPairs:
    """The pairs with pixels of the images as they were loaded."""
    if views.images is None:
        return pairs
    size = tuple(views.images.shape[-2:])
    if size == tuple(views.image_size):
        return pairs
    scale = pairs.uv.new_tensor([size[1] / views.image_size[1], size[0] / views.image_size[0]])
    return PixelPairs(pairs.point, pairs.view, (pairs.uv + 0.5) * scale - 0.5, pairs.depth_z)


class FrozenMaps:
    """Maps of a frozen pyramid, each computed once; has no parameters.

    Args:
        pyramid: in which nothing trains, with one summed map.
        store: folder in which a feature store named by the weights is kept; None keeps maps in
            memory.
        max_bytes: of the memory; the least recently used go first. Maps are kept as float16.
    """

    def __init__(
        self,
        pyramid: FeaturePyramid,
        store: str | os.PathLike | None = None,
        max_bytes: int = 1 << 30,
    ) -> None:
        if not pyramid.frozen or pyramid.fuse != 'sum':
            raise ValueError("only the summed map of a frozen network is kept: frozen, fuse='sum'")
        if max_bytes < 0:
            raise ValueError(f'max_bytes must not be negative, got {max_bytes}')
        self.pyramid = pyramid
        self.store = store
        self.memory = MapCache(max_bytes, torch.float16)
        self._writer: FeatureStoreWriter | None = None
        self._version = -1  # of the weights that the open store is named by

    @torch.no_grad()
    def __call__(self, views: PosedViews) -> ImageMaps:
        """Maps of the images, kept ones where scene and frame have names.

        Raises:
            ValueError: views without images.
        """
        images = images_of(views)
        covered = tuple(side + -side % 32 for side in images.shape[-2:])
        if not (views.scene_id and views.frames):
            return ImageMaps((self._compute(images),), covered)
        self.memory.belong_to(self.pyramid)
        keys = [(views.scene_id, frame) for frame in views.frames]
        found = {key: self._get(key, covered) for key in keys}
        missing = [i for i, key in enumerate(keys) if found[key] is None]
        if missing:
            computed = self._compute(images[missing]).permute(0, 2, 3, 1)
            for i, cells in zip(missing, computed):
                found[keys[i]] = self._put(keys[i], cells, covered)
            if self._writer is not None:
                self._writer.flush()
        stacked = torch.stack([found[key].to(images.device) for key in keys]).float()
        return ImageMaps((stacked.permute(0, 3, 1, 2),), covered)

    def close(self) -> None:
        """Give the store's shard back to other writers."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _compute(self, images: Tensor) -> Tensor:
        pieces = [self.pyramid(piece).maps[0] for piece in images.split(_BATCH)]
        return torch.cat(pieces).contiguous(memory_format=torch.channels_last)

    def _get(self, key: Key, covered: tuple[int, int]) -> Tensor | None:
        """Kept cells (h, w, C), or None."""
        if self.store is None:
            kept = self.memory.get((*key, covered))
            return None if kept is None else kept['cells']
        writer = self._open(covered)
        if not writer.has(*key):
            return None
        return torch.from_numpy(writer.get(*key)['feat']).permute(1, 2, 0)

    def _put(self, key: Key, cells: Tensor, covered: tuple[int, int]) -> Tensor:
        """Keep cells; returned as they are kept."""
        kept = self.memory.stored({'cells': cells})
        if self.store is None:
            self.memory.put((*key, covered), kept)
        else:
            feat = kept['cells'].permute(2, 0, 1).contiguous().numpy()
            self._open(covered).put(*key, {'feat': feat})
        return kept['cells']

    def _open(self, covered: tuple[int, int]) -> FeatureStoreWriter:
        """The store of these weights, opened anew when they changed."""
        version = sum(x._version for x in self.pyramid.state_dict().values())
        if version != self._version:
            self.close()
        if self._writer is None:
            self._version = version
            digest = weights_digest(self.pyramid)
            stamp = StoreStamp(
                encoder='FeaturePyramid',
                weights_digest=digest,
                layer='res2+res3+res4+res5',
                mode='tokens',
                attn_mode='none',
                input_size=covered,
                dtype='float16',
                preprocessing='padded to multiples of 32, ImageNet mean and std',
                channels=self.pyramid.out_channels,
                grid=(covered[0] // 4, covered[1] // 4),
            )
            folder = Path(self.store) / digest[:16]
            self._writer = FeatureStoreWriter(folder, stamp, rank=get_rank())
        return self._writer

    def __getstate__(self) -> dict:
        return {**self.__dict__, '_writer': None}


def pyramid_maps(pyramid: FeaturePyramid) -> MapsOf:
    """Maps of a pyramid that trains: computed anew every time."""

    def maps_of(views: PosedViews) -> ImageMaps:
        return pyramid(images_of(views))

    return maps_of


def stored_maps(views: PosedViews) -> ImageMaps:
    """Maps that the data pipeline read from a feature store.

    Raises:
        ValueError: views without maps.
    """
    if views.feat is None:
        raise ValueError(f'{views.scene_id}: its views have no stored feature maps')
    return ImageMaps((views.feat.float(),), tuple(views.image_size))


def images_of(views: PosedViews) -> Tensor:
    """The images of views.

    Raises:
        ValueError: there are none.
    """
    if views.images is None:
        raise ValueError(f'{views.scene_id}: its views have no images')
    return views.images
