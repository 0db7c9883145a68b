"""Views of a batch → one aggregated image feature per point: the front half of MVPNet.

Enters: xyz of the points of each sample, ``PosedViews`` with images (or with stored maps), a
``FeaturePyramid`` and a ``ViewAggregator``. Leaves: ``LiftedPoints``. P pairs of a sample.

    images → pyramid → map (1/4) ─ read at the P pairs ─ aggregator ─ (N, C)
    points, poses → pairs, confidence (distance) ──────────┘

Maps of a frozen pyramid do not change, so they are computed once and kept (``frozen_maps``).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from oneformer3d.backbones.fpn import FeaturePyramid, ImageMaps
from oneformer3d.lifting.aggregation import ViewAggregator
from oneformer3d.lifting.normals import estimate_normals
from oneformer3d.lifting.pair_aggregation import (
    DECAY,
    aggregate_pairs,
    original_coordinates,
    pair_agreement,
    pair_confidence,
    strongest_pairs,
)
from oneformer3d.lifting.pairs import PixelPairs
from oneformer3d.lifting.sampling import gather_pairs
from oneformer3d.structures import PosedViews


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
    if views.pixels_masked:
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


class PyramidMaps:
    """Maps of a pyramid that trains: computed anew every time.

    An object, since a copy of the model must compute with the copy of its network.

    Args:
        pyramid: the network.
    """

    def __init__(self, pyramid: FeaturePyramid) -> None:
        self.pyramid = pyramid

    def __call__(self, views: PosedViews) -> ImageMaps:
        """Maps of the images.

        Raises:
            ValueError: views without images.
        """
        return self.pyramid(images_of(views))


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
