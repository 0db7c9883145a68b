"""Views of a batch → one aggregated image feature per point: the front half of MVPNet.

Enters: xyz of the points of each sample, ``PosedViews`` with images (or with stored maps), a
``FeaturePyramid`` and a ``ViewAggregator``. Leaves: ``LiftedPoints``. P pairs of a sample.

    images → pyramid → map (1/4) ─ read at the P pairs ─ aggregator ─ (N, C)
    points, poses → pairs, confidence (distance) ──────────┘

Maps of a frozen pyramid do not change, so they are computed once and kept (``frozen_maps``).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from oneformer3d.backbones.fpn import FeaturePyramid, ImageMaps
from oneformer3d.lifting.camera import resize_pixels
from oneformer3d.lifting.confidence import DECAY
from oneformer3d.lifting.normals import estimate_normals
from oneformer3d.lifting.pair_aggregation import best_pairs, lift_pairs, original_coordinates
from oneformer3d.lifting.pairs import PixelPairs
from oneformer3d.lifting.sampling import read_pairs
from oneformer3d.lifting.shapes import size_of
from oneformer3d.lifting.view_aggregator import ViewAggregator
from oneformer3d.structures import PosedViews

MapsOf = Callable[[PosedViews], ImageMaps]


@dataclass(frozen=True)
class LiftedPoints:
    """What the views show at points.

    Attributes:
        features: (sum N, C), the aggregator's token where not visible.
        visible: (sum N,) bool, in some view.
        agreement: (sum N,) in [0, 1], how far the views of a point show the same (see
            ``view_agreement``), 0 where not visible; None unless requested.
    """

    features: Tensor
    visible: Tensor
    agreement: Tensor | None = None


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
        with_agreement: also measure how far the views of a point agree.

    Raises:
        ValueError: views of other points, or without images.
    """
    if len(points) != len(views):
        raise ValueError(f'{len(points)} point clouds but {len(views)} views')
    lifted = []
    for i, (sample, seen_by) in enumerate(zip(points, views)):
        num_points = len(sample)
        visible = torch.zeros(num_points, dtype=torch.bool, device=sample.device)
        if seen_by is None or len(seen_by.pairs) == 0:
            token = aggregator.no_view.expand(num_points, -1)
            lifted.append(LiftedPoints(token, visible, sample.new_zeros(num_points)))
            continue
        if seen_by.num_points != num_points:
            raise ValueError(f'sample {i}: views of {seen_by.num_points} points, got {num_points}')

        # views stand where the scan was, before augmentation moved the points
        xyz = original_coordinates(sample[:, :3], seen_by.augmented_from_original)
        pairs, confidence = reliable_pairs(xyz, seen_by, max_views, decay, normal_voxel)
        features, agreement = lift_pairs(
            partial(read_maps, maps_of(seen_by), views=seen_by),
            aggregator,
            pairs,
            confidence,
            xyz,
            max_points=None if torch.is_grad_enabled() else chunk_size,
            with_agreement=with_agreement,
        )
        visible = visible.index_fill(0, pairs.point, True)
        lifted.append(LiftedPoints(features, visible, agreement))

    return LiftedPoints(
        torch.cat([x.features for x in lifted]),
        torch.cat([x.visible for x in lifted]),
        torch.cat([x.agreement for x in lifted]) if with_agreement else None,
    )


def reliable_pairs(
    xyz: Tensor,
    views: PosedViews,
    max_views: int | None = None,
    decay: float = DECAY,
    normal_voxel: float | None = None,
) -> tuple[PixelPairs, Tensor]:
    """``best_pairs`` of points (N, 3) before augmentation; other arguments as in ``lift_views``."""
    normals = None if normal_voxel is None else estimate_normals(xyz, normal_voxel)
    return best_pairs(
        xyz,
        views.pairs,
        views.world_from_cam,
        normals,
        decay,
        two_sided=True,
        max_views=max_views,
    )


def read_maps(maps: ImageMaps, pairs: PixelPairs, views: PosedViews) -> Tensor:
    """Features (P, ΣC) of the pairs, all maps side by side; zeros where pixels are masked."""
    if views.pixels_masked:
        return maps.maps[0].new_zeros(len(pairs), maps.num_channels)
    return read_pairs(maps.maps, image_pixels(pairs, views), maps.covered)


def image_pixels(pairs: PixelPairs, views: PosedViews) -> PixelPairs:
    """The pairs with pixels of the images as they were loaded."""
    if views.images is None:
        return pairs
    size = size_of(views.images)
    if size == tuple(views.image_size):
        return pairs
    return replace(pairs, uv=resize_pixels(pairs.uv, views.image_size, size))


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
    return ImageMaps((views.feat.float(),), views.image_size)


def images_of(views: PosedViews) -> Tensor:
    """The images of views.

    Raises:
        ValueError: there are none.
    """
    if views.images is None:
        raise ValueError(f'{views.scene_id}: its views have no images')
    return views.images
