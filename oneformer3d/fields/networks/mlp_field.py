"""Fields that are perceptrons of encoded positions: SemanticNeRF and its two relatives.

Enters: unit-box positions (…, 3). Leaves: as every field, see ``field``.

One path leads from positions to every head: ``density_net`` gives h, ``density_head(h)`` the
density and ``feature_head(h)`` the hidden values that colour, semantics, instances and language
all read, while training, rendering and answering queries.

Letters: as in ``field``.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oneformer3d.clip.encoder import ClipEncoder
from oneformer3d.clip.text import CANONICAL_PHRASES, encode_text, pairwise_relevancy
from oneformer3d.clip.weights import ClipModel, load_clip

from .encodings import PositionalEncoding
from .field import Field
from .heads import ColorHead, InstanceHead, LanguageHead, SemanticHead
from .scene_box import SceneBox

_NUM_LAYERS = 4
# Softplus is its argument from here on.
_LINEAR_SOFTPLUS = 20.0


class SemanticNeRF(Field):
    """A radiance field with class logits (Semantic-NeRF, ICCV 2021).

    Args:
        pos_encoding_dims: frequencies of positions.
        view_encoding_dims: frequencies of directions.
        hidden_dim: width H.
        num_classes: C.
        semantic_mode: what is composited along rays, 'probabilities' or 'logits'.
        scene_box: similarity into the unit box; None takes positions as they are.
    """

    def __init__(
        self,
        pos_encoding_dims: int = 10,
        view_encoding_dims: int = 4,
        hidden_dim: int = 256,
        num_classes: int = 20,
        *,
        semantic_mode: str = 'probabilities',
        scene_box: SceneBox | None = None,
    ) -> None:
        super().__init__(scene_box)
        self.hidden_dim = hidden_dim

        # trunk
        self.pos_encoder = PositionalEncoding(3, pos_encoding_dims)
        dims = [self.pos_encoder.output_dim] + [hidden_dim] * _NUM_LAYERS
        layers = [(nn.Linear(a, b), nn.ReLU()) for a, b in pairwise(dims)]
        self.density_net = nn.Sequential(*(module for layer in layers for module in layer))
        self.density_head = nn.Linear(hidden_dim, 1)
        self.feature_head = nn.Linear(hidden_dim, hidden_dim)

        view_encoder = PositionalEncoding(3, view_encoding_dims)
        self.head_nets['rgb'] = ColorHead(hidden_dim, view_encoder, hidden_dim // 2)
        self.head_nets['semantics'] = SemanticHead(
            hidden_dim, num_classes, hidden_dim, mode=semantic_mode
        )

    @property
    def base_nerf(self) -> 'SemanticNeRF':
        """Itself: the relatives, which the papers write around a base, are subclasses here."""
        return self

    @property
    def view_encoder(self) -> nn.Module:
        """Encoding of directions."""
        head = self.head('rgb')
        assert isinstance(head, ColorHead)
        return head.view_encoder

    @property
    def rgb_net(self) -> nn.Sequential:
        """Network of hidden values and encoded directions to colour."""
        return self.head('rgb').net

    @property
    def semantic_net(self) -> nn.Sequential:
        """Network of hidden values to class logits."""
        return self.head('semantics').net

    def density(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Softplus density (…) in float32 and hidden values (…, H)."""
        values = self.density_net(self.pos_encoder(positions))  # (…, H)
        raw = self.density_head(values).squeeze(-1)  # (…)
        density = F.softplus(raw if raw.dtype == torch.float64 else raw.float())
        return density, self.feature_head(values)

    @torch.no_grad()
    def init_density(self, density: float) -> None:
        """Set the density that the field begins with, near enough: the bias alone gives it."""
        # softplus⁻¹(σ) = log(e^σ − 1), which is σ for large ones
        bias = math.log(math.expm1(density)) if density < _LINEAR_SOFTPLUS else density
        self.density_head.bias.fill_(bias)


class PanopticNeRF(SemanticNeRF):
    """SemanticNeRF with a unit instance vector and a slot for every instance.

    Args:
        num_semantic_classes: C.
        max_instances: number of slots K.
        instance_feature_dim: D of the instance vectors.
        unit_instances: whether they lie on the sphere.
        hidden_dim, semantic_mode, scene_box: as ``SemanticNeRF``.
    """

    def __init__(
        self,
        num_semantic_classes: int = 20,
        max_instances: int = 100,
        instance_feature_dim: int = 64,
        *,
        unit_instances: bool = True,
        hidden_dim: int = 256,
        semantic_mode: str = 'probabilities',
        scene_box: SceneBox | None = None,
    ) -> None:
        super().__init__(
            hidden_dim=hidden_dim,
            num_classes=num_semantic_classes,
            semantic_mode=semantic_mode,
            scene_box=scene_box,
        )
        self.head_nets['instances'] = InstanceHead(
            hidden_dim, instance_feature_dim, num_slots=max_instances, unit_length=unit_instances
        )

    @property
    def instance_feature_net(self) -> nn.Sequential:
        """Network of hidden values to instance vectors, not yet of unit length."""
        return self.head('instances').net

    @property
    def instance_embeddings(self) -> nn.Embedding:
        """Vector of every slot, (K, D)."""
        assert self.instance_head is not None
        return self.instance_head.slots

    @property
    def temperature(self) -> nn.Parameter:
        """Of the slots' softmax."""
        assert self.instance_head is not None
        return self.instance_head.temperature

    def forward(self, points: Tensor, directions: Tensor | None = None) -> dict[str, Tensor]:
        """As ``Field.forward``, the instance vectors named 'instance_features'."""
        outputs = super().forward(points, directions)
        outputs['instance_features'] = outputs.pop('instances')
        return outputs


class LERF(SemanticNeRF):
    """SemanticNeRF with unit language vectors in CLIP's space (LERF, ICCV 2023).

    CLIP itself is no part of the field: it is loaded when a text is first encoded, and never
    saved with the field.

    Args:
        clip_model: open_clip name, path of a checkpoint, or a model with ``encode_text``.
        feature_dim: D of the text space.
        hidden_dim: width H.
        clip_weights: open_clip tag or file for a model given by name; None takes OpenAI's.
        num_classes, semantic_mode, scene_box: as ``SemanticNeRF``.
    """

    reads_text = True

    def __init__(
        self,
        clip_model: str | Path | ClipEncoder | ClipModel = 'ViT-B/32',
        feature_dim: int = 512,
        hidden_dim: int = 256,
        *,
        clip_weights: str | None = None,
        num_classes: int = 20,
        semantic_mode: str = 'probabilities',
        scene_box: SceneBox | None = None,
    ) -> None:
        super().__init__(
            hidden_dim=hidden_dim,
            num_classes=num_classes,
            semantic_mode=semantic_mode,
            scene_box=scene_box,
        )
        self.head_nets['language'] = LanguageHead(hidden_dim, feature_dim, hidden_dim)
        # temperature of the relevancy; LERF divides cosines by 0.1
        self.scale = nn.Parameter(torch.full((1,), 0.1), requires_grad=False)

        self._clip_source = (clip_model, clip_weights)
        self._clip: list[ClipModel] = []  # in a list, so that it is neither moved nor saved with us

    @property
    def language_decoder(self) -> nn.Sequential:
        """Network of hidden values and patch size to language vectors, not yet of unit length."""
        return self.head('language').net

    @property
    def clip_model(self) -> ClipModel:
        """CLIP, frozen; read now if it was not yet."""
        if not self._clip:
            self._clip.append(_load_clip(*self._clip_source))
        return self._clip[0]

    def forward(
        self,
        points: Tensor,
        directions: Tensor | None = None,
        text_queries: Sequence[str] | None = None,
    ) -> dict[str, Tensor]:
        """As ``Field.forward``, the language vectors named 'language_features'.

        With text queries also 'relevancy' (…, P) against the canonical phrases.
        """
        outputs = super().forward(points, directions)
        outputs['language_features'] = outputs.pop('language')

        if text_queries is not None:
            outputs['relevancy'] = pairwise_relevancy(
                outputs['language_features'],
                self.encode_text(text_queries),
                self.encode_text(CANONICAL_PHRASES),
                scale=1 / float(self.scale),
            )
        return outputs

    def encode_text(self, text_queries: Sequence[str]) -> Tensor:
        """Queries → (P, D) unit vectors on the field's device.

        Raises:
            FileNotFoundError: CLIP's weights are not on this machine.
            ValueError: its text space has another width than the field.
        """
        vectors = encode_text(self.clip_model, text_queries).to(self.scale.device)
        width = self.head('language').output_dim
        if vectors.shape[-1] != width:
            raise ValueError(f'CLIP has a text space of {vectors.shape[-1]}, the field of {width}')
        return vectors


def _load_clip(model: str | Path | ClipEncoder | ClipModel, weights: str | None) -> ClipModel:
    """The open_clip model behind a name, a file, a ``ClipEncoder`` or a model."""
    if isinstance(model, ClipEncoder):
        return model.clip
    if not isinstance(model, str | Path):
        return model
    if weights is None and str(model).endswith(('.pt', '.pth', '.safetensors')):
        return load_clip('ViT-B-32', model).model
    return load_clip(str(model).replace('/', '-'), weights or 'openai').model
