"""Predictions of queries, by layer and sample.

Enters and leaves: see ``QueryOutput``. Letters as in ``structures``.
"""

from collections.abc import Callable
from typing import TypedDict

from torch import Tensor


class SampleOutput(TypedDict):
    """Predictions of one decoder layer for one sample, as in ``LayerOutput``."""

    cls_preds: Tensor
    sem_preds: Tensor | None
    masks: Tensor
    scores: Tensor | None


class LayerOutput(TypedDict):
    """Predictions of one decoder layer, one list entry per sample.

    ``cls_preds`` (Q, C_inst + 1) logits, ``sem_preds`` (Q, C + 1) logits or None for the list,
    ``masks`` (Q, S) logits, ``scores`` (Q, 1) predicted mask quality or None for the list.
    """

    cls_preds: list[Tensor]
    sem_preds: list[Tensor] | None
    masks: list[Tensor]
    scores: list[Tensor] | None


class QueryOutput(LayerOutput):
    """Predictions of the last decoder layer and, in ``aux_outputs``, of those before it."""

    aux_outputs: list[LayerOutput] | None


def split_queries(
    outputs: QueryOutput, num_semantic_queries: int
) -> tuple[QueryOutput, QueryOutput]:
    """Outputs of the instance queries and of the semantic queries, which come last.

    Without semantic queries both are all queries.
    """
    if num_semantic_queries == 0:
        return outputs, outputs
    return (
        map_outputs(outputs, lambda x: x[:-num_semantic_queries]),
        map_outputs(outputs, lambda x: x[-num_semantic_queries:]),
    )


def map_outputs(outputs: QueryOutput, function: Callable[[Tensor], Tensor]) -> QueryOutput:
    """The outputs with ``function`` applied to every tensor of every layer."""
    auxiliary = outputs['aux_outputs']
    return QueryOutput(
        **_map_layer(outputs, function),
        aux_outputs=None if auxiliary is None else [_map_layer(x, function) for x in auxiliary],
    )


def _map_layer(layer: LayerOutput, function: Callable[[Tensor], Tensor]) -> LayerOutput:
    def mapped(tensors: list[Tensor] | None) -> list[Tensor] | None:
        return None if tensors is None else [function(x) for x in tensors]

    return LayerOutput(
        cls_preds=[function(x) for x in layer['cls_preds']],
        sem_preds=mapped(layer['sem_preds']),
        masks=[function(x) for x in layer['masks']],
        scores=mapped(layer['scores']),
    )
