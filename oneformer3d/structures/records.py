"""Records of points: voxels, features, what a decoder and a criterion are given.

Enters and leaves: see the records. Letters as in ``structures``.
"""

from dataclasses import dataclass, replace

from torch import Tensor

from .views import PosedViews


@dataclass(frozen=True)
class VoxelGrid:
    """A voxelised batch.

    Attributes:
        features: (M, F) float32, mean of the points of each voxel.
        coords: (M, 4) int32 rows [batch, x, y, z], unique, sorted, not negative.
        voxel_of_point: (sum N,) int64, the row of each point.
        spatial_shape: extent of the grid in voxels along x, y, z.
        num_points: N of each sample.
    """

    features: Tensor
    coords: Tensor
    voxel_of_point: Tensor
    spatial_shape: tuple[int, int, int]
    num_points: tuple[int, ...]

    @property
    def batch_size(self) -> int:
        """Number of samples."""
        return len(self.num_points)


@dataclass(frozen=True)
class PointFeatures:
    """A feature for every point: what any encoder returns.

    Attributes:
        features: (sum N, D).
        voxel_of_point: (sum N,) int64, batch-wide voxel row of each point; the voxels of a sample
            are consecutive rows. Used as superpoints where a dataset has none.
        num_points: N of each sample, in the order in which points are stacked.
        views: of each sample, or None, with the maps that the encoder computed; None where it
            left the views as they came, and those of the inputs are read.
        without_views: (sum N, D) the features as they are if no sample has views. Training then
            decodes every sample twice, the second time with these features and no views, and the
            losses are means over both. None asks for nothing.
    """

    features: Tensor
    voxel_of_point: Tensor
    num_points: tuple[int, ...]
    views: tuple[PosedViews | None, ...] | None = None
    without_views: Tensor | None = None


@dataclass(frozen=True)
class DecoderScene:
    """Where the superpoints of one sample are and who sees them.

    Attributes:
        points: (N, ≥ 3), xyz in metres first, as the encoder got them (augmented).
        superpoints: (N,) int64 dense ids 0…S−1.
        views: of the sample, or None.
        query_ids: (Q,) int64, the superpoint of each query; None where queries are learned.
    """

    points: Tensor
    superpoints: Tensor
    views: PosedViews | None = None
    query_ids: Tensor | None = None


@dataclass(frozen=True)
class SceneTargets:
    """Ground truth of one sample, R = I + C + 1 rows: instances on top of semantic classes.

    Attributes:
        labels_3d: (R,) int64, instance classes of I rows, then 0…C.
        sp_masks: (R, S) bool, instance masks, then one row per semantic class, the last of them
            the unlabeled superpoints.
        query_masks: (R, Q) bool, the columns of ``sp_masks`` that became queries; None when
            every superpoint is a query or queries are learned.
        query_ids: (Q,) int64, those superpoints; None as above.
    """

    labels_3d: Tensor
    sp_masks: Tensor
    query_masks: Tensor | None = None
    query_ids: Tensor | None = None

    def with_queries(self, query_ids: Tensor) -> 'SceneTargets':
        """The same targets when superpoints ``query_ids`` (Q,) are the queries."""
        return replace(self, query_masks=self.sp_masks[:, query_ids], query_ids=query_ids)
