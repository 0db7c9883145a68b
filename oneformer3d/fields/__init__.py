"""Neural fields: one scene's colour, semantics, instances, features and language at any point.

In: posed RGB-D images of a scene, with labels or features where there are any. Out: a field that
answers at world points and along rays. Knows cameras and the feature store, not the segmentor.
"""

from .encodings import FrequencyEncoding, PositionalEncoding, SphericalHarmonics, contract
from .field import Field
from .fit import train_semantic_nerf
from .hash_field import HashGridField
from .hash_grid import HashGrid
from .heads import FeatureField
from .instance_losses import (
    contrastive_instance_loss,
    linear_assignment_loss,
    slow_fast_contrastive_loss,
)
from .losses import SemanticNeRFLoss, clip_feature_loss, total_loss
from .mlp_field import LERF, PanopticNeRF, SemanticNeRF
from .occupancy import OccupancyGrid, OccupancySampler
from .proposals import ProposalNetwork, ProposalSampler
from .query import query_lerf_with_text, query_nerf_at_points, relevancy
from .rays import Rays, SceneBox, clip_to_box, pixel_rays, sample_rays, scene_normalisation
from .render import FeatureRenderer, render_image, render_rays, render_semantic_rays
from .samplers import (
    HierarchicalSampler,
    UniformSampler,
    hierarchical_sampling,
    inverse_cdf_edges,
    stratified_edges,
)
from .segment import segment_scan_with_field
from .volume import composite, weights_from_density

__all__ = [
    'LERF',
    'FeatureField',
    'FeatureRenderer',
    'Field',
    'FrequencyEncoding',
    'HashGrid',
    'HashGridField',
    'HierarchicalSampler',
    'OccupancyGrid',
    'OccupancySampler',
    'PanopticNeRF',
    'PositionalEncoding',
    'ProposalNetwork',
    'ProposalSampler',
    'Rays',
    'SceneBox',
    'SemanticNeRF',
    'SemanticNeRFLoss',
    'SphericalHarmonics',
    'UniformSampler',
    'clip_feature_loss',
    'clip_to_box',
    'composite',
    'contract',
    'contrastive_instance_loss',
    'hierarchical_sampling',
    'inverse_cdf_edges',
    'linear_assignment_loss',
    'pixel_rays',
    'query_lerf_with_text',
    'query_nerf_at_points',
    'relevancy',
    'render_image',
    'render_rays',
    'render_semantic_rays',
    'sample_rays',
    'scene_normalisation',
    'segment_scan_with_field',
    'slow_fast_contrastive_loss',
    'stratified_edges',
    'total_loss',
    'train_semantic_nerf',
    'weights_from_density',
]
