"""The query decoder whose queries also attend to what single views show of objects.

Enters: superpoint features, queries, and a ``DecoderScene`` of each sample. Leaves: a
``QueryOutput``. Each layer: mask attention to superpoints, attention among queries, attention to
object tokens behind a gate that starts at zero, FFN. A query attends to the tokens that are near a
superpoint of its mask, and to one learnt token that says "none". With a gate of zero and without
views it is the plain ``QueryDecoder``, whose weights it loads.

Letters: Q queries, S superpoints, T tokens, V views, C channels of a frozen token, D = d_model.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from oneformer3d.backbones.sub_pixel import group_norm_of_cells
from oneformer3d.lifting.shapes import expect_shape
from oneformer3d.registry import MODELS
from oneformer3d.segmentor.query_decoder import QueryDecoder, ReadViews
from oneformer3d.store import token_channels
from oneformer3d.structures import DecoderScene

from .object_tokens import near_superpoints, object_tokens


@MODELS.register_module()
class ObjectTokenDecoder(QueryDecoder):
    """Query decoder with attention to the objects of single views.

    The step follows SegDINO3D: a token takes part where a superpoint of the query's mask lies
    within 0.2 m (L1) of its centre, and tokens are left out at random in training.

    Args:
        clip_channels: C; the header of a store that is there decides.
        clip_store: folder of the feature store, or None.
        radius: L1 distance in metres between a token and a superpoint of the mask.
        token_dropout: how often each token is left out in training; 0.1 (ScanNet) to 0.7
            (ScanNet200) in the paper.
        min_pairs: objects that fewer points of a view show have no token.
        **query_decoder: of ``QueryDecoder``.

    Raises:
        ValueError: impossible settings, or settings without predictions of every layer.
    """

    def __init__(
        self,
        clip_channels: int | None = None,
        clip_store: str | None = None,
        radius: float = 0.2,
        token_dropout: float = 0.1,
        min_pairs: int = 4,
        **query_decoder,
    ) -> None:
        super().__init__(**query_decoder)
        if not self.iter_pred:
            raise ValueError('ObjectTokenDecoder: masks of every layer are needed: iter_pred=True')
        if not 0 <= token_dropout < 1:
            raise ValueError(f'token_dropout must be within 0…1, got {token_dropout}')
        if radius <= 0 or min_pairs < 1:
            raise ValueError(f'expected positive radius and min_pairs: {radius}, {min_pairs}')
        self.clip_channels = token_channels(clip_store, clip_channels)
        self.radius = radius
        self.token_dropout = token_dropout
        self.min_pairs = min_pairs

        d_model = self.out_norm.normalized_shape[0]
        self.token_proj = nn.Sequential(
            nn.Linear(self.clip_channels, d_model), nn.ReLU(), nn.Linear(d_model, d_model)
        )
        self.no_token = nn.Parameter(torch.zeros(1, d_model))
        self.token_layers = nn.ModuleList(
            nn.MultiheadAttention(d_model, self.num_heads, batch_first=True)
            for _ in self.cross_attn_layers
        )
        self.token_gates = nn.ParameterList(
            nn.Parameter(torch.zeros(d_model)) for _ in self.cross_attn_layers
        )

    def _view_readers(
        self, features: Sequence[Tensor], scenes: Sequence[DecoderScene | None]
    ) -> list[ReadViews | None]:
        """Attention to the tokens of each sample."""
        return [self._view_reader(scene, len(x)) for scene, x in zip(scenes, features)]

    def _view_reader(self, scene: DecoderScene | None, num_superpoints: int) -> ReadViews:
        """What the layers of one sample do with its tokens."""
        tokens, near = self._tokens(scene, num_superpoints)  # (T, D), (S, T)
        keys = torch.cat((tokens, self.no_token))[None]  # (1, T + 1, D)
        has_views = float(len(tokens) > 0)

        def read_views(layer: int, queries: Tensor, mask_logits: Tensor) -> Tensor:
            in_mask = (mask_logits.detach() > 0).to(near.dtype)  # (Q, S)
            far = in_mask @ near == 0  # (Q, T)
            blocked = torch.cat((far, far.new_zeros(len(far), 1)), dim=1)  # never the last
            update = self.token_layers[layer](
                queries[None], keys, keys, attn_mask=blocked, need_weights=False
            )[0][0]  # (Q, D)
            # Without tokens the factor is 0, and yet every parameter has a gradient.
            return queries + has_views * self.token_gates[layer] * update

        return read_views

    def _tokens(self, scene: DecoderScene | None, num_superpoints: int) -> tuple[Tensor, Tensor]:
        """(T, D) tokens of a sample and (S, T) 1 where they are near a superpoint, else 0."""
        views = None if scene is None else scene.views
        if scene is None or views is None or not views.num_views:
            nothing = self.no_token.new_zeros(1, self.clip_channels)
            return self.token_proj(nothing)[:0], nothing.new_zeros(num_superpoints, 0)
        if views.feat is None:
            raise ValueError(f'{views.scene_id or "sample"}: its views have no feature maps')
        expect_shape('maps', views.feat, 'V C h w', V=views.num_views, C=self.clip_channels)

        maps = group_norm_of_cells(views.feat.to(self.no_token), 1)
        if views.pixels_masked:
            maps = torch.zeros_like(maps)
        cells = self.token_proj(maps.permute(0, 2, 3, 1))  # (V, h, w, D)
        tokens = object_tokens(cells, scene, self.min_pairs)
        if self.training:
            tokens = tokens.drop(self.token_dropout)
        return tokens.features, near_superpoints(tokens, scene, self.radius).to(cells.dtype)
