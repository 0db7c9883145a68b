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
    ViewBatch       images or maps of all samples, stacked once
    PointFeatures   what an encoder returns
    DecoderScene    points, superpoints and views of one sample, for decoders that read images
    SceneTargets    ground truth of one sample in superpoints, enters the criterion
    QueryOutput     what a query decoder returns (a dict)
    Segmentation    a segmented scan and the files it becomes; its objects are ``Instance``

Contracts: ``PointEncoder`` and ``MaskDecoder``, the bases of what a segmentor is built of. Fields
of data samples: ``labels``.
"""

from .boxes import UprightBox, fit_upright_box
from .contracts import MaskDecoder, PointEncoder, expect_contract
from .instances import Instance
from .labels import find_point_labels, point_labels
from .queries import LayerOutput, QueryOutput, SampleOutput, map_outputs, split_queries
from .records import DecoderScene, PointFeatures, SceneTargets, VoxelGrid
from .segmentation import ModelInfo, Segmentation, SegmentationInfo
from .state_names import hide_prefix
from .views import PosedViews, ViewBatch, views_of

__all__ = [
    'DecoderScene',
    'Instance',
    'LayerOutput',
    'MaskDecoder',
    'ModelInfo',
    'PointEncoder',
    'PointFeatures',
    'PosedViews',
    'QueryOutput',
    'SampleOutput',
    'SceneTargets',
    'Segmentation',
    'SegmentationInfo',
    'UprightBox',
    'ViewBatch',
    'VoxelGrid',
    'expect_contract',
    'find_point_labels',
    'fit_upright_box',
    'hide_prefix',
    'map_outputs',
    'point_labels',
    'split_queries',
    'views_of',
]
