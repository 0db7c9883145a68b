"""Batches of packed samples to the model's device.

Enters: the collated batch ``dict(inputs=dict(points=[(N, F)], …), data_samples=[…])``. Leaves: the
same on the model's device. Clouds differ in size, so they stay lists; nothing is padded.
"""

from typing import Any

import torch
from mmengine.model import BaseDataPreprocessor

from oneformer3d.registry import MODELS
from oneformer3d.structures import PosedViews


@MODELS.register_module(name=['SceneDataPreprocessor', 'Det3DDataPreprocessor_'])
class SceneDataPreprocessor(BaseDataPreprocessor):
    """Move every tensor of a batch to the device; all keys of ``inputs`` are kept."""

    def forward(self, data: dict, training: bool = False) -> dict:
        """The batch on the device of the model.

        Args:
            data: ``inputs`` and, except for pure inference, ``data_samples``.
            training: unused, the same is done in training and testing.

        Raises:
            ValueError: ``inputs`` hold no list of point tensors, or a list of another length.
        """
        inputs = data['inputs']
        points = inputs.get('points')
        if not isinstance(points, (list, tuple)) or not all(map(torch.is_tensor, points)):
            raise ValueError("inputs: expected 'points', a list of (N, F) tensors")
        for key, value in inputs.items():
            if isinstance(value, (list, tuple)) and len(value) != len(points):
                raise ValueError(
                    f'inputs: {len(points)} point clouds but {len(value)} entries of {key!r}'
                )

        data_samples = data.get('data_samples')
        if data_samples is not None and len(data_samples) != len(points):
            raise ValueError(
                f'batch: {len(points)} point clouds but {len(data_samples)} data samples'
            )

        return {
            'inputs': self.cast_data(dict(inputs)),
            'data_samples': self.cast_data(data_samples),
        }

    def cast_data(self, data: Any) -> Any:
        """As the base class, which would leave views where they are."""
        if isinstance(data, PosedViews):
            return data.to(self.device, bool(self._non_blocking))
        return super().cast_data(data)
