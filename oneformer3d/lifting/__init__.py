"""From pixels to points: cameras and what an image sees. Knows torch and nothing else.

Read the room in this order:

1. ``camera``: points ↔ pixels, and the rule for pixels of resized images.
2. ``visibility``: what counts as visible (``Visibility``), depth test, z-buffer.
3. ``pairs``: many points in many views, kept as visible (point, view) pairs.
4. ``sampling``: feature maps read at pairs.
5. ``confidence`` and ``aggregation``: how far to trust a view, and many views → one feature.
6. ``pair_aggregation``: 3 to 5 together, a chunk of points at a time; what the networks use.

On top: ``lift`` and ``uv`` (the documented calls), ``efficient`` (clouds of millions of points),
``bev`` (a grid from above), ``provenance`` (why a view does not count). Below: ``inputs`` checks
what callers hand over, ``chunks`` keeps to a byte budget, ``shapes`` words the errors.
"""

from .aggregation import (
    AGGREGATORS,
    LearnableFusion,
    MultiViewAggregator,
    TransformerFeatureAggregator,
    build_aggregator,
)
from .bev import BEVFeatureLifting
from .camera import (
    Camera,
    invert_pose,
    is_valid_pose,
    project,
    resize_intrinsics,
    resize_pixels,
    transform_points,
    unproject,
)
from .chunks import DEFAULT_BYTE_BUDGET
from .confidence import (
    compute_feature_confidence,
    entropy_confidence,
    fuse_predictions,
    view_agreement,
    vote_agreement,
)
from .depth_render import render_depth_from_pointcloud, zbuffer_views
from .efficient import EfficientFeatureLifting
from .grid import check_grid_sample_shapes, pixel_to_grid_coords
from .inputs import opencv_from_opengl
from .lift import extract_multiscale_features, lift_features_to_points, lift_mean_features
from .map_cache import MapCache
from .normals import estimate_normals
from .pair_aggregation import aggregate_pairs, lift_pairs
from .pairs import (
    PixelPairs,
    nearest_view,
    project_pairs,
    project_visible,
    reproject_pairs,
    visible_pairs,
)
from .provenance import Provenance, Reason, trace_sources
from .sampling import gather_pairs, sample_map
from .view_aggregator import ViewAggregator
from .visibility import (
    Visibility,
    drop_depth_edges,
    majority_instance,
    visible_mask,
    zbuffer,
)

__all__ = [
    'AGGREGATORS',
    'DEFAULT_BYTE_BUDGET',
    'BEVFeatureLifting',
    'Camera',
    'EfficientFeatureLifting',
    'LearnableFusion',
    'MapCache',
    'MultiViewAggregator',
    'PixelPairs',
    'Provenance',
    'Reason',
    'TransformerFeatureAggregator',
    'ViewAggregator',
    'Visibility',
    'aggregate_pairs',
    'build_aggregator',
    'check_grid_sample_shapes',
    'compute_feature_confidence',
    'drop_depth_edges',
    'entropy_confidence',
    'estimate_normals',
    'extract_multiscale_features',
    'fuse_predictions',
    'gather_pairs',
    'invert_pose',
    'is_valid_pose',
    'lift_features_to_points',
    'lift_mean_features',
    'lift_pairs',
    'majority_instance',
    'nearest_view',
    'opencv_from_opengl',
    'pixel_to_grid_coords',
    'project',
    'project_pairs',
    'project_visible',
    'render_depth_from_pointcloud',
    'reproject_pairs',
    'resize_intrinsics',
    'resize_pixels',
    'sample_map',
    'trace_sources',
    'transform_points',
    'unproject',
    'view_agreement',
    'visible_mask',
    'visible_pairs',
    'vote_agreement',
    'zbuffer',
    'zbuffer_views',
]
