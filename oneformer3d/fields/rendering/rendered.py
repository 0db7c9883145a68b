"""What rendering found: one record for rays, one for images.

Enters: nothing; ``render`` fills them. Leaves: named tensors, and a flat dict of them for callers
that index by name, such as the losses.

Letters: R rays, S samples per ray, H × W pixels, C classes, D feature width.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class RenderedRays:
    """What R rays met, in metres.

    Attributes:
        distance: (R,) mean distance along the ray, 0 where nothing was met.
        depth: (R,) the same as z-depth.
        accumulation: (R,) Σ w, the share of the light that was stopped.
        z_scale: (R,) distance per z-depth, as in ``Rays``.
        edges: (R, S + 1) ends of the intervals.
        density: (R, S) per metre.
        weights: (R, S) share of the light that each interval stopped.
        heads: by name: rgb (R, 3), semantics (R, C) probabilities (or logits), instances (R, D)
            and language (R, D) unit vectors, features or features_<type> (R, D).
        proposals: (edges, weights) of each round, from samplers that train some.
    """

    distance: Tensor
    depth: Tensor
    accumulation: Tensor
    z_scale: Tensor
    edges: Tensor
    density: Tensor
    weights: Tensor
    heads: Mapping[str, Tensor]
    proposals: list[tuple[Tensor, Tensor]]

    def as_dict(self) -> dict[str, Any]:
        """All fields by name, the heads beside them; 'proposals' only where there are some."""
        values = dict(vars(self))
        heads, proposals = values.pop('heads'), values.pop('proposals')
        return {**values, **heads, **({'proposals': proposals} if proposals else {})}


@dataclass(frozen=True)
class RenderedImage:
    """What the rays of a camera met, in metres.

    Attributes:
        distance: (H, W) mean distance along the ray, 0 where nothing was met.
        depth: (H, W) the same as z-depth.
        accumulation: (H, W) Σ w, the share of the light that was stopped.
        heads: (H, W, K) by name, as in ``RenderedRays``.
    """

    distance: Tensor
    depth: Tensor
    accumulation: Tensor
    heads: Mapping[str, Tensor]

    def as_dict(self) -> dict[str, Tensor]:
        """All maps by name, the heads beside them."""
        values = dict(vars(self))
        heads = values.pop('heads')
        return {**values, **heads}
