"""Predictions of queries, by layer and sample.

Enters and leaves: see ``QueryOutput``. Letters as in ``structures``.
"""

from collections.abc import Callable
from typing import TypedDict

from torch import Tensor


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
    mapped = {}
    for key, value in outputs.items():
        if value is None:
            mapped[key] = None
        elif key == 'aux_outputs':
            mapped[key] = [map_outputs(layer, function) for layer in value]
        else:
            mapped[key] = [function(x) for x in value]
    return mapped
