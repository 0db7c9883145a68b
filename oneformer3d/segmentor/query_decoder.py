"""Superpoint features to class, mask and semantic predictions of queries.

Enters: per sample superpoint features (S, C_in) and, unless queries are learned, the features of
the superpoints chosen as queries (Q, C_in). Leaves: a ``QueryOutput``. Each layer lets queries
attend to superpoints inside their current mask, then to each other (Kolodiazhnyi et al.,
"OneFormer3D", CVPR 2024; mask attention after Cheng et al., Mask2Former, CVPR 2022).

Letters: Q queries, S superpoints, D = d_model, H heads.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oneformer3d.registry import MODELS
from oneformer3d.structures import (
    DecoderScene,
    LayerOutput,
    MaskDecoder,
    QueryOutput,
    SampleOutput,
)

# layer, queries (Q, D), mask logits (Q, S) → queries (Q, D): what a decoder that reads views does
# between self-attention and FFN
ReadViews = Callable[[int, Tensor, Tensor], Tensor]


@MODELS.register_module(name=['QueryDecoder', 'ScanNetQueryDecoder'])
class QueryDecoder(MaskDecoder):
    """Query decoder with selected-superpoint or learned queries.

    Learned queries are used when ``num_instance_queries + num_semantic_queries > 0``: the first
    rows are instance queries, the last ones semantic. Otherwise superpoint features become
    queries through ``query_proj``. All heads share their weights over layers and also read the
    initial queries, so ``num_layers + 1`` outputs exist; the first of them are auxiliary.

    Args:
        num_layers: number of cross-attention, self-attention, FFN triples.
        num_instance_queries: learned instance queries.
        num_semantic_queries: learned semantic queries.
        num_instance_classes: C_inst.
        in_channels: channels of superpoint features.
        d_model: D.
        num_heads: H.
        hidden_dim: width of the FFN.
        dropout: probability, in attention and FFN.
        activation_fn: 'relu' or 'gelu', of the FFN.
        iter_pred: predict after every layer, and mask attention by the prediction.
        attn_mask: restrict cross-attention to the predicted mask (needs ``iter_pred``).
        fix_attention: dropout and norm after cross-attention. False leaves both out (their
            parameters stay), as in SPFormer.
        objectness_flag: predict the quality of masks (``scores``).
        num_semantic_classes: C; adds a semantic head to the last layer.
        num_semantic_linears: depth of that head, 1 or 2.
        num_classes: another name of ``num_instance_classes`` in published settings.
        side_channels: further channels of the features, behind ``in_channels``, that the decoder
            does not see at first: their weights start at zero and have names of their own, so
            the weights of a decoder without them load and mean the same.
    """

    def __init__(
        self,
        # queries and classes
        num_layers: int,
        num_instance_queries: int,
        num_semantic_queries: int,
        num_instance_classes: int,
        # widths
        in_channels: int,
        d_model: int = 256,
        num_heads: int = 8,
        hidden_dim: int = 1024,
        dropout: float = 0.0,
        activation_fn: str = 'gelu',
        # attention and prediction
        iter_pred: bool = True,
        attn_mask: bool = True,
        fix_attention: bool = True,
        # heads
        objectness_flag: bool = False,
        num_semantic_classes: int | None = None,
        num_semantic_linears: int = 1,
        num_classes: int | None = None,
        side_channels: int = 0,
    ) -> None:
        super().__init__()
        if num_classes not in (None, num_instance_classes):
            raise ValueError(
                f'num_classes={num_classes} but num_instance_classes={num_instance_classes}'
            )
        if num_semantic_linears not in (1, 2):
            raise ValueError(f'num_semantic_linears: expected 1 or 2, got {num_semantic_linears}')
        self.num_instance_classes = num_instance_classes
        self.num_instance_queries = num_instance_queries
        self.num_semantic_queries = num_semantic_queries
        self.num_heads = num_heads
        self.iter_pred = iter_pred
        self.attn_mask = attn_mask
        self.in_channels = in_channels
        self.side_channels = side_channels

        # entries
        self.input_proj = nn.Sequential(
            _entry(in_channels, d_model, side_channels), nn.LayerNorm(d_model), nn.ReLU()
        )
        if self.learned_queries:
            self.query = nn.Embedding(num_instance_queries + num_semantic_queries, d_model)
        else:
            self.query_proj = _mlp(in_channels, d_model, d_model, side_channels)

        # layers
        self.cross_attn_layers = nn.ModuleList(
            CrossAttentionLayer(d_model, num_heads, dropout, fix_attention)
            for _ in range(num_layers)
        )
        self.self_attn_layers = nn.ModuleList(
            SelfAttentionLayer(d_model, num_heads, dropout) for _ in range(num_layers)
        )
        self.ffn_layers = nn.ModuleList(
            FFN(d_model, hidden_dim, dropout, activation_fn) for _ in range(num_layers)
        )

        # heads, shared by all layers
        self.out_norm = nn.LayerNorm(d_model)
        self.out_cls = _mlp(d_model, d_model, num_instance_classes + 1)
        self.out_score = _mlp(d_model, d_model, 1) if objectness_flag else None
        self.x_mask = _mlp(in_channels, d_model, d_model, side_channels)
        self.out_sem = _semantic_head(d_model, num_semantic_classes, num_semantic_linears)

    @property
    def learned_queries(self) -> bool:
        """Whether queries are an embedding rather than superpoints."""
        return self.num_instance_queries + self.num_semantic_queries > 0

    def forward(
        self,
        features: Sequence[Tensor],
        queries: Sequence[Tensor] | None = None,
        keep_aux: bool = True,
        scenes: Sequence[DecoderScene] | None = None,
    ) -> QueryOutput:
        """Decode every sample.

        Args:
            features: per sample (S, C_in), or (S, C_in + side_channels).
            queries: per sample as the features, those of selected superpoints; None for learned
                queries.
            keep_aux: return the outputs of all layers. Their masks are (Q, S) each, so prediction
                does without.
            scenes: points, superpoints and views of each sample, for decoders that read views;
                None for no views.

        Raises:
            ValueError: queries given to a decoder that learns them, or missing, features that
                are not as wide as this decoder reads, or scenes of another batch.
        """
        self._check_input(features, queries)
        if scenes is not None and len(scenes) != len(features):
            raise ValueError(f'{len(features)} samples but {len(scenes)} scenes')

        readers = self._view_readers(features, scenes or [None] * len(features))
        samples = [
            self._decode_sample(x, None if queries is None else queries[i], keep_aux, readers[i])
            for i, x in enumerate(features)
        ]
        return _collate_samples(samples)

    def _view_readers(
        self, features: Sequence[Tensor], scenes: Sequence[DecoderScene | None]
    ) -> list[ReadViews | None]:
        """What the layers do with the views of each sample: nothing, in this decoder."""
        return [None] * len(features)

    def _check_input(self, features: Sequence[Tensor], queries: Sequence[Tensor] | None) -> None:
        if self.learned_queries == (queries is not None):
            expected = 'no queries (they are learned)' if self.learned_queries else 'queries'
            raise ValueError(f'{type(self).__name__} expected {expected}')
        for x in features:
            if x.shape[1] != self.in_channels + self.side_channels:
                raise ValueError(
                    f'{type(self).__name__}: expected features of in_channels={self.in_channels} '
                    f'and side_channels={self.side_channels}, got {x.shape[1]} channels'
                )

    def _decode_sample(
        self,
        features: Tensor,
        queries: Tensor | None,
        keep_aux: bool,
        read_views: ReadViews | None,
    ) -> list[SampleOutput]:
        """Predictions of one sample after 0, 1, … num_layers layers (or the last alone)."""
        keys = self.input_proj(features)  # (S, D)
        mask_features = self.x_mask(features)  # (S, D)
        x = self.query.weight if queries is None else self.query_proj(queries)  # (Q, D)
        num_layers = len(self.cross_attn_layers)

        outputs = []
        for layer in range(num_layers + 1):
            is_last = layer == num_layers
            if self.iter_pred or is_last:
                output = self._predict(x, mask_features, is_last)
                if keep_aux or is_last:
                    outputs.append(output)

            if not is_last:
                # queries attend to the superpoints of their mask, to each other, to the views
                use_mask = self.iter_pred and self.attn_mask
                blocked = blocked_positions(output['masks']) if use_mask else None
                x = self.cross_attn_layers[layer](x, keys, blocked)
                x = self.self_attn_layers[layer](x)
                if read_views is not None:
                    x = read_views(layer, x, output['masks'])
                x = self.ffn_layers[layer](x)
        return outputs

    def _predict(self, queries: Tensor, mask_features: Tensor, is_last: bool) -> SampleOutput:
        normed = self.out_norm(queries)  # (Q, D)
        return SampleOutput(
            cls_preds=self.out_cls(normed),
            sem_preds=self.out_sem(normed) if is_last and self.out_sem is not None else None,
            masks=normed @ mask_features.T,
            scores=self.out_score(normed) if self.out_score is not None else None,
        )


def blocked_positions(mask_logits: Tensor) -> Tensor:
    """Attention mask of predicted masks (Q, S): True where a query must not attend.

    A query whose mask is empty attends everywhere; without this its attention were undefined.
    """
    blocked = mask_logits.detach().sigmoid() < 0.5
    return blocked & ~blocked.all(dim=-1, keepdim=True)


class CrossAttentionLayer(nn.Module):
    """Queries attend to superpoints; post-norm residual."""

    def __init__(self, d_model: int, num_heads: int, dropout: float, fix: bool) -> None:
        super().__init__()
        self.fix = fix
        self.attn = nn.MultiheadAttention(d_model, num_heads, dropout=dropout, batch_first=True)
        self.norm = nn.LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, queries: Tensor, keys: Tensor, blocked: Tensor | None) -> Tensor:
        """(Q, D) queries, (S, D) keys, (Q, S) bool or None → (Q, D)."""
        attended = self.attn(
            queries[None], keys[None], keys[None], attn_mask=blocked, need_weights=False
        )[0][0]
        if not self.fix:
            return queries + attended
        return self.norm(queries + self.dropout(attended))


class SelfAttentionLayer(nn.Module):
    """Queries attend to each other; post-norm residual."""

    def __init__(self, d_model: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(d_model, num_heads, dropout=dropout, batch_first=True)
        self.norm = nn.LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, queries: Tensor) -> Tensor:
        """(Q, D) → (Q, D)."""
        x = queries[None]
        attended = self.attn(x, x, x, need_weights=False)[0][0]
        return self.norm(queries + self.dropout(attended))


class FFN(nn.Module):
    """Two-layer perceptron; post-norm residual."""

    def __init__(self, d_model: int, hidden_dim: int, dropout: float, activation_fn: str) -> None:
        super().__init__()
        activations = {'relu': nn.ReLU, 'gelu': nn.GELU}
        if activation_fn not in activations:
            raise ValueError(f'activation_fn: expected relu or gelu, got {activation_fn}')
        self.net = nn.Sequential(
            nn.Linear(d_model, hidden_dim),
            activations[activation_fn](),
            nn.Dropout(dropout),
            nn.Linear(hidden_dim, d_model),
            nn.Dropout(dropout),
        )
        self.norm = nn.LayerNorm(d_model)

    def forward(self, x: Tensor) -> Tensor:
        """(Q, D) → (Q, D)."""
        return self.norm(x + self.net(x))


class SideLinear(nn.Linear):
    """A linear layer of two inputs side by side, which starts without the second.

        y = W x + b + W_side x_side

    The weights of the second input are a parameter of their own, ``side``, that starts at zero.

    Args:
        in_features: channels of x.
        out_features: channels of y.
        side_features: channels of x_side.
    """

    def __init__(self, in_features: int, out_features: int, side_features: int) -> None:
        super().__init__(in_features, out_features)
        self.side = nn.Parameter(torch.zeros(out_features, side_features))

    def forward(self, x: Tensor) -> Tensor:
        """(…, in_features + side_features) → (…, out_features)."""
        return F.linear(x, torch.cat((self.weight, self.side), dim=1), self.bias)


def _entry(in_dim: int, out_dim: int, side_dim: int) -> nn.Linear:
    return SideLinear(in_dim, out_dim, side_dim) if side_dim else nn.Linear(in_dim, out_dim)


def _mlp(in_dim: int, hidden_dim: int, out_dim: int, side_dim: int = 0) -> nn.Sequential:
    return nn.Sequential(
        _entry(in_dim, hidden_dim, side_dim), nn.ReLU(), nn.Linear(hidden_dim, out_dim)
    )


def _semantic_head(d_model: int, num_classes: int | None, num_linears: int) -> nn.Module | None:
    """Head over C + 1 classes; None without semantic classes."""
    if num_classes is None:
        return None
    if num_linears == 1:
        return nn.Linear(d_model, num_classes + 1)
    return _mlp(d_model, d_model, num_classes + 1)


def _collate_samples(samples: Sequence[Sequence[SampleOutput]]) -> QueryOutput:
    """Predictions by sample, then layer, as those of a batch."""
    layers = [_collate(list(layer)) for layer in zip(*samples)]
    return QueryOutput(**layers[-1], aux_outputs=layers[:-1] or None)


def _collate(layer: list[SampleOutput]) -> LayerOutput:
    """Per-sample predictions of one layer as lists; None where a head is absent."""
    return LayerOutput(
        cls_preds=[sample['cls_preds'] for sample in layer],
        sem_preds=_present([sample['sem_preds'] for sample in layer]),
        masks=[sample['masks'] for sample in layer],
        scores=_present([sample['scores'] for sample in layer]),
    )


def _present(tensors: list[Tensor | None]) -> list[Tensor] | None:
    present = [x for x in tensors if x is not None]
    return present or None
