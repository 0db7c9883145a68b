"""What a pixel with measured depth teaches at the place it sees, without rendering its ray.

In: a field and a batch of R pixels. Out: what the field's heads say at one point per pixel, and the
targets of those pixels.

Where the surface is opaque and its distance known, the rendering integral is the value there: one
sample does the work of a ray's dozen. Density is left to the rays that are rendered.

Letters: R pixels, M of them with measured depth, K values of a head.
"""

from collections.abc import Collection

import torch
from torch import Tensor

from .batches import RayBatch
from .field import Field
from .rays import z_to_distance

# Heads that are taught so; vectors of instances are compared in pairs, which are too many here.
_HEADS = ('rgb', 'semantics', 'features', 'language')


def surface_batch(batch: RayBatch, near: float, far: float) -> RayBatch:
    """The M pixels whose measured z-depth lies between `near` and `far` metres."""
    depth = batch.targets['depth']
    return batch[((depth > near) & (depth <= far)).nonzero()[:, 0]]


def surface_outputs(
    field: Field,
    batch: RayBatch,
    heads: Collection[str] | None = None,
    reach: float = 0.0,
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """What the heads say where M pixels see something.

    Args:
        field: any.
        batch: with depth at every pixel.
        heads: wanted; None for all. Heads of instances are left out.
        reach: metres before and behind the surface within which the place is drawn, so that what
            rendering mixes from both sides learns alike.
        generator: of those draws.

    Returns:
        As `render_rays`: 'rgb' (M, 3), 'semantics' (M, C), 'features' or 'features_<type>' (M, D)
        and 'language' (M, D), of what there is, and 'accumulation' (M,) of 1.
    """
    rays = batch.rays
    distance = z_to_distance(batch.targets['depth'], rays)
    off = torch.rand(len(rays), generator=generator).to(distance) * 2 - 1
    points = rays.positions((distance + reach * off)[:, None])[:, 0]
    positions = field.scene_box.to_unit(points)
    _, hidden = field.density(positions)
    angle = batch.targets.get('crop_angle')
    size = None if angle is None else angle * distance
    one = distance.new_ones(len(rays))
    outputs = {'accumulation': one}
    for name, head in field.select_heads(heads).items():
        if name.split('_')[0] in _HEADS:
            values = head.sample(field.reach(head, hidden), positions, rays.directions, size)
            outputs[name] = head.finish(values, one)
    return outputs


def surface_weights(weights: dict[str, float]) -> dict[str, float]:
    """Of the weights of all loss terms, those of what is taught at surfaces."""
    return {name: weights[name] for name in _HEADS}
