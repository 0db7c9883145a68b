"""Where along its rays a field is queried, while it is fitted and when it is shown.

Enters: a ``FittedField``, a batch of pixels with their targets. Leaves: rays and a sampler.

Letters: R rays.
"""

from dataclasses import replace

from ..rendering.occupancy import OccupancySampler
from ..rendering.rays import Rays, clip_to_box, z_to_distance
from ..rendering.samplers import (
    GuidedSampler,
    HierarchicalSampler,
    RefinedSampler,
    Sampler,
    UniformSampler,
)
from ..scene.batches import RayBatch
from .fitted import FittedField


def bounded_rays(fitted: FittedField, batch: RayBatch) -> Rays:
    """The batch's rays between the settings' near and far, cut to the scene's box
    unless the field is contracted."""
    settings, rays = fitted.settings, batch.rays
    rays = replace(rays, near=settings.near * rays.z_scale, far=settings.far * rays.z_scale)
    if fitted.field.contracted:  # all of space lies in the contracted cube
        return rays
    return clip_to_box(rays, fitted.field.scene_box)


def training_sampler(fitted: FittedField, batch: RayBatch) -> Sampler:
    """Samples while fitting: proposed, or measured depth takes the place of a second round."""
    settings, depth = fitted.settings, batch.targets.get('depth')
    if fitted.proposals is not None:
        return fitted.proposals
    if not settings.guided or depth is None or settings.fine_samples == 0:
        return _two_rounds(fitted, settings.coarse_samples, settings.fine_samples)

    base: Sampler = UniformSampler(settings.coarse_samples)
    if fitted.occupancy is not None:
        base = OccupancySampler(fitted.occupancy, settings.num_probes, settings.coarse_samples)
    distance = z_to_distance(depth, batch.rays)  # (R,)
    return GuidedSampler(base, distance, settings.fine_samples, settings.guide_range)


def view_sampler(fitted: FittedField) -> Sampler:
    """Samples of a field that is fitted: where the field itself finds matter."""
    settings = fitted.settings
    if fitted.proposals is not None:
        return fitted.proposals
    return _two_rounds(fitted, settings.view_coarse_samples, settings.view_fine_samples)


def _two_rounds(fitted: FittedField, num_coarse: int, num_fine: int) -> Sampler:
    if fitted.occupancy is None:
        return HierarchicalSampler(num_coarse, max(num_fine, 1))
    base = OccupancySampler(fitted.occupancy, fitted.settings.num_probes, num_coarse)
    return RefinedSampler(base, num_fine) if num_fine else base
