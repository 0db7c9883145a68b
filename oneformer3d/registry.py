"""The one seam to the registries of mmdet3d.

Everything registers in mmdet3d's own registries, so type names of published
configurations resolve as they are, under ``default_scope = 'mmdet3d'``.
"""

from mmdet3d.registry import (
    DATA_SAMPLERS,
    DATASETS,
    HOOKS,
    METRICS,
    MODELS,
    OPTIM_WRAPPERS,
    TASK_UTILS,
    TRANSFORMS,
)

__all__ = [
    'DATASETS',
    'DATA_SAMPLERS',
    'HOOKS',
    'METRICS',
    'MODELS',
    'OPTIM_WRAPPERS',
    'TASK_UTILS',
    'TRANSFORMS',
]
