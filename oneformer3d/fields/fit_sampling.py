"""Where a fit's rays are cut and sampled: around measured depth while fitting, by the field later.

In: a `FittedField`, batches of rays. Out: rays with near and far, samplers. Letters: R rays.
"""

from dataclasses import replace

from .batches import RayBatch
from .fitted import FittedField
from .guided_sampling import GuidedSampler, RefinedSampler
from .occupancy import OccupancySampler
from .rays import Rays, clip_to_box, z_to_distance
from .samplers import HierarchicalSampler, Sampler, UniformSampler


def bounded_rays(fitted: FittedField, batch: RayBatch) -> Rays:
    """The batch's rays between the settings' near and far, cut to the scene's box."""
    settings, rays = fitted.settings, batch.rays
    rays = replace(rays, near=settings.near * rays.z_scale, far=settings.far * rays.z_scale)
    return clip_to_box(rays, fitted.field.scene_box)


def view_sampler(fitted: FittedField) -> Sampler:
    """How views are rendered once a field is fitted: where the field itself finds matter."""
    settings = fitted.settings
    return _own_sampler(fitted, settings.view_coarse_samples, settings.view_fine_samples)


def training_sampler(fitted: FittedField, batch: RayBatch) -> Sampler:
    """Measured depth takes the place of the second round."""
    settings, depth = fitted.settings, batch.targets.get('depth')
    if not settings.guided or depth is None or settings.fine_samples == 0:
        return _own_sampler(fitted, settings.coarse_samples, settings.fine_samples)
    base: Sampler = UniformSampler(settings.coarse_samples)
    if fitted.occupancy is not None:
        base = OccupancySampler(fitted.occupancy, settings.num_probes, settings.coarse_samples)
    distance = z_to_distance(depth, batch.rays)
    return GuidedSampler(base, distance, settings.fine_samples, settings.guide_range)


def _own_sampler(fitted: FittedField, num_coarse: int, num_fine: int) -> Sampler:
    if fitted.occupancy is None:
        return HierarchicalSampler(num_coarse, max(num_fine, 1))
    base = OccupancySampler(fitted.occupancy, fitted.settings.num_probes, num_coarse)
    return RefinedSampler(base, num_fine) if num_fine else base
