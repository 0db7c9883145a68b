"""From pixels to points: cameras and what an image sees. Knows torch and nothing else."""

from .camera import (
    Camera,
    invert_pose,
    is_valid_pose,
    project,
    resize_intrinsics,
    transform_points,
    unproject,
)
from .chunks import DEFAULT_BYTE_BUDGET
from .pairs import (
    PixelPairs,
    nearest_view,
    project_pairs,
    project_visible,
    reproject_pairs,
    zbuffer_views,
)
from .sampling import gather_pairs, sample_map
from .visibility import drop_depth_edges, majority_instance, visible_mask, zbuffer

__all__ = [
    'DEFAULT_BYTE_BUDGET',
    'Camera',
    'PixelPairs',
    'drop_depth_edges',
    'gather_pairs',
    'invert_pose',
    'is_valid_pose',
    'majority_instance',
    'nearest_view',
    'project',
    'project_pairs',
    'project_visible',
    'reproject_pairs',
    'resize_intrinsics',
    'sample_map',
    'transform_points',
    'unproject',
    'visible_mask',
    'zbuffer',
    'zbuffer_views',
]
