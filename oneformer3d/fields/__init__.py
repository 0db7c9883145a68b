"""Neural fields: one scene's colour, semantics, instances, features and language at any point.

Enters: posed RGB-D images of a scene, with labels or features where there are any. Leaves: a field
that answers at world points and along rays. Knows cameras and the feature store, not the segmentor.

Six rooms, in the order a reader and a ray pass them:

    scene/      the images, labels and features of one scene, drawn as batches of pixels
    networks/   a position to density, and by heads to colour, classes, features and language
    rendering/  pixels to rays, rays to samples, samples to what the pixel shows
    losses/     what is rendered against what was observed
    fitting/    batches, rendering and losses in a loop, and the checkpoint it leaves
    asking/     points and views of a fitted field: labels, text, pictures, measures
"""

from .asking.query import query_nerf_at_points
from .asking.segment import create_nerf_dataset, segment_scan_with_field
from .asking.text import query_lerf_with_text, relevancy
from .fitting.semantic_nerf import fit_semantic_nerf, train_semantic_nerf
from .losses.instance_losses import (
    contrastive_instance_loss,
    linear_assignment_loss,
    slow_fast_contrastive_loss,
)
from .losses.pixel_losses import clip_feature_loss
from .losses.total import SemanticNeRFLoss, total_loss
from .networks.encodings import FrequencyEncoding, PositionalEncoding, SphericalHarmonics, contract
from .networks.feature_field import FeatureField
from .networks.field import Field
from .networks.hash_field import HashGridField
from .networks.hash_grid import HashGrid
from .networks.mlp_field import LERF, PanopticNeRF, SemanticNeRF
from .networks.scene_box import SceneBox
from .rendering.occupancy import OccupancyGrid, OccupancySampler
from .rendering.proposals import ProposalNetwork, ProposalSampler
from .rendering.rays import Rays, clip_to_box, pixel_rays, sample_rays, scene_normalisation
from .rendering.render import FeatureRenderer, render_image, render_rays, render_semantic_rays
from .rendering.rendered import RenderedImage, RenderedRays
from .rendering.samplers import (
    HierarchicalSampler,
    UniformSampler,
    hierarchical_sampling,
    inverse_cdf_edges,
)
from .rendering.spacing import stratified_edges
from .rendering.volume import composite, weights_from_density

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
    'RenderedImage',
    'RenderedRays',
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
    'create_nerf_dataset',
    'fit_semantic_nerf',
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
