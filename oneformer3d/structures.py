"""Glossary of shapes and the small records that travel between the parts.

Dimension letters, the same everywhere:
    B samples in a batch; N points of one sample, ``sum N`` points of the batch; M voxels of the
    batch; S superpoints of one sample (or its voxels, where a dataset has no superpoints);
    Q queries; I instances of one sample; C semantic classes (label C means unlabeled);
    C_inst instance classes (class C_inst means "no object"); D channels; V views (posed images)
    of one sample; P pairs of a point and a view that sees it.

Records:
    VoxelGrid       voxelised batch, enters a backbone
    PosedViews      images of one sample with their pixel-point pairs
    PointFeatures   what an encoder returns
    DecoderScene    points, superpoints and views of one sample, for decoders that read images
    SceneTargets    ground truth of one sample in superpoints, enters the criterion
    QueryOutput     what a query decoder returns (a dict)
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypedDict

import torch
from torch import Tensor

from oneformer3d.lifting.pairs import PixelPairs


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
class PosedViews:
    """The views of one sample; V = 0 and P = 0 are legal. Everything is in original coordinates.

    Attributes:
        pairs: P visible pairs, ``uv`` in pixels of an image of ``image_size``.
        world_from_cam: (V, 4, 4) camera to world, metres, before augmentation.
        image_size: (H, W) that ``pairs.uv`` belongs to.
        num_points: N of the sample.
        scene_id: name of the scene, '' where it has none.
        frames: name of each view.
        feat: (V, C, h, w) dense map of each view over its whole image, or None.
        clip_global: (V, D) embedding of each view, or None.
        images: (V, 3, H', W') uint8 colours, or None.
        intrinsics: (3, 3) or (V, 3, 3) of an image of ``image_size``, or None.
        augmented_from_original: (4, 4), what augmentation did to the points.
        pixels_hidden: the network sees zeros in place of the features; poses and visibility
            stay, and so do the maps as targets of a loss.
    """

    pairs: PixelPairs
    world_from_cam: Tensor
    image_size: tuple[int, int]
    num_points: int
    scene_id: str = ''
    frames: tuple[str, ...] = ()
    feat: Tensor | None = None
    clip_global: Tensor | None = None
    images: Tensor | None = None
    intrinsics: Tensor | None = None
    augmented_from_original: Tensor | None = None
    pixels_hidden: bool = False

    @property
    def num_views(self) -> int:
        """V."""
        return len(self.world_from_cam)

    @property
    def augmented_from_cam(self) -> Tensor:
        """(V, 4, 4) camera to the augmented points; carries the scale and mirror of that."""
        if self.augmented_from_original is None:
            return self.world_from_cam
        return self.augmented_from_original @ self.world_from_cam

    def to(self, device: torch.device | str, non_blocking: bool = False) -> 'PosedViews':
        """The views on another device."""
        tensors = {
            name: value.to(device, non_blocking=non_blocking)
            for name, value in vars(self).items()
            if isinstance(value, Tensor)
        }
        return replace(self, pairs=self.pairs.to(device), **tensors)


@dataclass(frozen=True)
class PointFeatures:
    """A feature for every point: the contract between any encoder and the segmentor.

    Attributes:
        features: (sum N, D).
        voxel_of_point: (sum N,) int64, batch-wide voxel row of each point; the voxels of a sample
            are consecutive rows. Used as superpoints where a dataset has none.
        num_points: N of each sample, in the order in which points are stacked.
    """

    features: Tensor
    voxel_of_point: Tensor
    num_points: tuple[int, ...]


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


class LayerOutput(TypedDict):
    """Predictions of one decoder layer, one list entry per sample.

    ``cls_preds`` (Q, C_inst + 1) logits, ``sem_preds`` (Q, C + 1) logits or None for the list,
    ``masks`` (Q, S) logits, ``scores`` (Q, 1) predicted mask quality or None for the list.
    """

    cls_preds: list[Tensor]
    sem_preds: list[Tensor] | None
    masks: list[Tensor]
    scores: list[Tensor] | None


class QueryOutput(LayerOutput):
    """Predictions of the last decoder layer and, in ``aux_outputs``, of those before it."""

    aux_outputs: list[LayerOutput] | None


def split_queries(
    outputs: QueryOutput, num_semantic_queries: int
) -> tuple[QueryOutput, QueryOutput]:
    """Outputs of the instance queries and of the semantic queries, which come last.

    Without semantic queries both are all queries.
    """
    if num_semantic_queries == 0:
        return outputs, outputs
    return (
        map_outputs(outputs, lambda x: x[:-num_semantic_queries]),
        map_outputs(outputs, lambda x: x[-num_semantic_queries:]),
    )


def map_outputs(outputs: QueryOutput, function: Callable[[Tensor], Tensor]) -> QueryOutput:
    """The outputs with ``function`` applied to every tensor of every layer."""
    mapped = {}
    for key, value in outputs.items():
        if value is None:
            mapped[key] = None
        elif key == 'aux_outputs':
            mapped[key] = [map_outputs(layer, function) for layer in value]
        else:
            mapped[key] = [function(x) for x in value]
    return mapped
