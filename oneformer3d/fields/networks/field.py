"""A scene's field: density with hidden values, and heads that read them.

Enters: unit-box positions (…, 3), unit directions (…, 3). Leaves: density per unit length (…),
hidden values (…, H), and a dict of the heads' values by name. Rendering, queries and all
subclasses take this one path, so what is trained is what is queried.

Heads are named 'rgb', 'semantics', 'instances', 'features' (or 'features_<type>' for several)
and 'language'.

Letters: H hidden width, C classes, D feature width, K instance slots, P phrases.
"""

from collections.abc import Collection, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from .heads import GRADIENT_REACHES, Head, InstanceHead
from .scene_box import SceneBox

# Beyond this a density is opaque at any resolution, and exp would overflow.
_MAX_LOG_DENSITY = 15.0


class Field(nn.Module):
    """Base of all fields; a subclass writes ``density`` and fills ``head_nets``.

    What only some fields can do is said by ``num_classes``, ``num_slots``, ``reads_text``
    and ``contracted``.

    Args:
        scene_box: the similarity into the unit box; None leaves coordinates as they are.

    Attributes:
        num_slots: K of ``instance_logits``, 0 for a field without slots.
        reads_text: whether the field has ``encode_text``.
        contracted: whether the field answers outside its box, in contracted space.
    """

    reads_text: bool = False
    contracted: bool = False
    unit_from_world: Tensor
    half_extent: Tensor

    def __init__(self, scene_box: SceneBox | None = None) -> None:
        super().__init__()
        self.head_nets = nn.ModuleDict()
        box = SceneBox.identity() if scene_box is None else scene_box
        self.register_buffer('unit_from_world', box.unit_from_world.float().clone())
        self.register_buffer('half_extent', box.half_extent.float().clone())

    # What a subclass writes

    def density(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Unit-box positions (…, 3) → density per unit length (…) ≥ 0, hidden (…, H)."""
        raise NotImplementedError

    def init_density(self, density: float) -> None:
        """Set the density per unit length that the field begins with, before it is trained."""
        raise NotImplementedError(f'{type(self).__name__} has no density to begin with')

    def encode_text(self, text_queries: Sequence[str]) -> Tensor:
        """P phrases → unit vectors (P, D), where the field ``reads_text``."""
        raise NotImplementedError(f'{type(self).__name__} reads no text')

    # What every field has

    @property
    def num_classes(self) -> int:
        """C of the head 'semantics', 0 without one."""
        return self.head('semantics').output_dim if 'semantics' in self.head_nets else 0

    @property
    def instance_head(self) -> InstanceHead | None:
        """The head 'instances', None without one."""
        head = self.select_heads(None).get('instances')
        return head if isinstance(head, InstanceHead) else None

    def head(self, name: str) -> Head:
        """The head of a name.

        Raises:
            ValueError: the field has none of this name.
        """
        return self.select_heads([name])[name]

    @property
    def num_slots(self) -> int:
        """K of ``instance_logits``, 0 without slots."""
        return 0 if self.instance_head is None else self.instance_head.num_slots

    def instance_logits(self, features: Tensor) -> Tensor:
        """Instance vectors (…, D) → slots (…, K), where ``num_slots`` is not 0."""
        if self.instance_head is None or not self.num_slots:
            raise NotImplementedError(f'{type(self).__name__} has no instance slots')
        return self.instance_head.slot_logits(features)

    @property
    def scene_box(self) -> SceneBox:
        """The stored similarity; it is part of the state dict."""
        return SceneBox(self.unit_from_world, self.half_extent)

    @scene_box.setter
    def scene_box(self, box: SceneBox) -> None:
        self.unit_from_world.copy_(box.unit_from_world)
        self.half_extent.copy_(box.half_extent)

    def forward(self, points: Tensor, directions: Tensor | None = None) -> dict[str, Tensor]:
        """Density per metre (…) and all heads at world points (…, 3)."""
        positions = self.scene_box.to_unit(points)
        density, hidden = self.density(positions)
        values = self.heads(hidden, positions, directions)
        return {'density': density * self.scene_box.scale, **values}

    def world_density(self, points: Tensor) -> Tensor:
        """Density per metre (…) at world points (…, 3)."""
        return self.density(self.scene_box.to_unit(points))[0] * self.scene_box.scale

    def heads(
        self,
        hidden: Tensor,
        positions: Tensor,
        directions: Tensor | None = None,
        names: Collection[str] | None = None,
        patch_size: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Values of the heads at positions.

        Args:
            hidden: (…, H) from ``density``.
            positions: (…, 3) in the unit box.
            directions: (…, 3) unit; without them heads that need them are left out.
            names: heads wanted; None = all that need nothing more than is given.
            patch_size: (…) metres, for language.

        Returns:
            By name: rgb (…, 3) in 0–1, semantics (…, C) logits, instances (…, D) unit vectors,
            features (…, D), language (…, D) unit vectors.

        Raises:
            ValueError: a head that the field does not have.
        """
        return {
            name: head(self.reach(head, hidden), positions, directions, patch_size)
            for name, head in self.select_heads(names, directions is not None).items()
        }

    def select_heads(
        self, names: Collection[str] | None, with_directions: bool = True
    ) -> dict[str, Head]:
        """The named heads; for None all, but without directions only those that need none."""
        heads = cast(dict[str, Head], dict(self.head_nets.items()))
        if names is None:
            return {k: h for k, h in heads.items() if with_directions or not h.needs_directions}

        unknown = sorted(set(names) - set(heads))
        if unknown:
            raise ValueError(f'the field has no head {unknown}, only {list(heads)}')
        return {name: head for name, head in heads.items() if name in names}

    def add_head(self, name: str, head: Head, freeze: bool = True) -> None:
        """Add a head to a field that may be trained already.

        Args:
            name: of the head; it must be new.
            head: its network.
            freeze: leave everything else as it is: only the new head is trained.
        """
        if name in self.head_nets:
            raise ValueError(f'the field has a head {name!r} already')
        if freeze:
            self.requires_grad_(False)
            head.gradient = 'head'
        self.head_nets[name] = head.to(self.unit_from_world.device)

    def set_gradient(self, name: str, reach: str) -> None:
        """How far the gradients of a head go: 'density', 'trunk' or 'head'."""
        if reach not in GRADIENT_REACHES:
            raise ValueError(f'reach must be of {GRADIENT_REACHES}, got {reach!r}')
        self.head(name).gradient = reach

    @staticmethod
    def reach(head: Head, hidden: Tensor) -> Tensor:
        """The hidden values a head reads, detached when only the head itself shall learn."""
        return hidden.detach() if head.gradient == 'head' else hidden


class _TruncatedExp(torch.autograd.Function):
    """exp forward; backward the gradient times exp of the value clamped to ±15 (Instant NGP)."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(max=_MAX_LOG_DENSITY).exp()

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad * x.clamp(-_MAX_LOG_DENSITY, _MAX_LOG_DENSITY).exp()


def trunc_exp(x: Tensor) -> Tensor:
    """exp in at least float32, at most e¹⁵, with a gradient that never vanishes or overflows."""
    return _TruncatedExp.apply(x if x.dtype == torch.float64 else x.float())
