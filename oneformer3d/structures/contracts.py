"""What a segmentor expects of its encoder and of its decoder.

Enters: the points of a batch. Leaves: ``PointFeatures`` of an encoder, ``QueryOutput`` of a
decoder. An encoder or a decoder of your own derives from one of these classes, defines
``forward`` and overrides what else it needs; everything besides has a default here.
"""

from collections.abc import Mapping, Sequence

from mmdet3d.structures import Det3DDataSample
from torch import Tensor, nn

from .queries import QueryOutput
from .records import DecoderScene, PointFeatures


class PointEncoder(nn.Module):
    """Base of encoders: points, and whatever else is known of a scene, to a feature per point."""

    def forward(
        self, inputs: Mapping, data_samples: Sequence[Det3DDataSample] | None = None
    ) -> PointFeatures:
        """Features of all points of a batch.

        Args:
            inputs: ``points`` [(N, F)], and what the encoder reads besides, such as ``views``
                [``PosedViews`` or None].
            data_samples: of the batch.
        """
        raise NotImplementedError

    def auxiliary_losses(
        self,
        points: PointFeatures,
        data_samples: Sequence[Det3DDataSample] | None = None,
        iteration: int | None = None,
    ) -> dict[str, Tensor]:
        """Further losses of training, and metrics, whose names do not contain "loss".

        Args:
            points: what ``forward`` returned.
            data_samples: of the batch.
            iteration: of training, from 0; None outside of a training run.
        """
        return {}


class MaskDecoder(nn.Module):
    """Base of decoders: superpoint features to masks and classes of queries.

    Attributes:
        num_instance_classes: C_inst.
        num_semantic_queries: how many of the last queries are semantic.
        learned_queries: queries are parameters; else the segmentor hands superpoints over.
    """

    num_instance_classes: int
    num_semantic_queries: int = 0
    learned_queries: bool = False

    def forward(
        self,
        features: Sequence[Tensor],
        queries: Sequence[Tensor] | None = None,
        keep_aux: bool = True,
        scenes: Sequence[DecoderScene] | None = None,
    ) -> QueryOutput:
        """Decode every sample.

        Args:
            features: per sample (S, C_in) of superpoints.
            queries: per sample (Q, C_in) of the superpoints that are queries; None where queries
                are learned.
            keep_aux: return the outputs of all layers.
            scenes: where the superpoints are and which views see them, for decoders that read
                this; None is a batch without views.
        """
        raise NotImplementedError


def expect_contract(part: nn.Module, base: type[nn.Module], role: str) -> None:
    """Check that a part of a segmentor has the class that documents what it has to do.

    Raises:
        TypeError: it has not; names the class.
    """
    if not isinstance(part, base):
        raise TypeError(
            f'{type(part).__name__}: {role} has to derive from '
            f'oneformer3d.structures.{base.__name__}, which says what the segmentor calls'
        )
