"""Test-time augmentation of MVPNet: the mean of the class probabilities of every point.

Enters: the batch of ``TestTimeAug``, ``inputs`` and ``data_samples`` of V views, in which the same
points are mirrored and turned about the vertical. Leaves: data samples as of the network alone.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from mmdet3d.structures import Det3DDataSample
from mmengine.model import BaseTTAModel
from torch import nn

from oneformer3d.registry import MODELS

from .point_labels import with_semantic_prediction
from .segmentor import FeatureLiftingSegmentation


@MODELS.register_module()
class MVPNetTTA(BaseTTAModel):
    """A ``FeatureLiftingSegmentation`` that looks at every scene several times.

    Args:
        module: settings of the network, or the network.
    """

    def __init__(self, module: dict[str, Any] | nn.Module) -> None:
        # built here: the base class would look the name up in mmengine's own registry
        module = module if isinstance(module, nn.Module) else MODELS.build(module)
        if not isinstance(module, FeatureLiftingSegmentation):
            raise TypeError(f'MVPNetTTA: expected an MVPNet, got {type(module).__name__}')
        super().__init__(module)

    @torch.no_grad()
    def test_step(self, data: dict[str, Any]) -> list[Det3DDataSample]:
        """Predictions of the scenes of a batch.

        Args:
            data: ``inputs`` and ``data_samples``, a list of V each, the first of which is the one
                whose sample is returned.
        """
        network = cast(FeatureLiftingSegmentation, self.module)
        views = [
            network.data_preprocessor({'inputs': inputs, 'data_samples': samples})
            for inputs, samples in zip(data['inputs'], data['data_samples'], strict=True)
        ]
        # what a view of the scene shows does not turn with the scene: the first agreement is any
        logits, agreement = network.logits_and_agreement(views[0]['inputs'])
        totals = [rows.softmax(1) for rows in logits]  # (N, C) each
        for view in views[1:]:
            seen = network.logits(view['inputs'])
            totals = [total + rows.softmax(1) for total, rows in zip(totals, seen, strict=True)]

        agreed = [None] * len(totals) if agreement is None else agreement
        return [
            with_semantic_prediction(sample, total / len(views), agreed_here)
            for sample, total, agreed_here in zip(views[0]['data_samples'], totals, agreed)
        ]

    def merge_preds(self, data_samples_list: Sequence[Any]) -> list[Det3DDataSample]:
        """Not used: what is averaged are probabilities, which predictions no longer have."""
        raise NotImplementedError('MVPNetTTA averages before labels are made: see test_step')
