"""The network on the part of the map around a frame.

Enters: points (M, 6) with z up, superpoints. Leaves: ``LocalInstances``. M points, K instances, D
channels of the encoder, S superpoints.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from numpy.typing import NDArray

from oneformer3d.inference.inferencer import OneFormer3DInferencer
from oneformer3d.inference.model_settings import test_settings
from oneformer3d.registry import TRANSFORMS
from oneformer3d.segmentor.oneformer3d import OneFormer3D
from oneformer3d.structures import DecoderScene


@dataclass(frozen=True, eq=False)
class LocalInstances:
    """What the network finds around a frame.

    Attributes:
        masks: (K, M) bool.
        labels: (K,) instance class.
        scores: (K,) 0…1, descending.
        features: (K, D) mean feature of the encoder within the mask, less that of all points:
            what they have in common tells nobody apart.
    """

    masks: NDArray[np.bool_]
    labels: NDArray[np.int64]
    scores: NDArray[np.float32]
    features: NDArray[np.float32]

    def take(self, keep: NDArray) -> 'LocalInstances':
        """Some of them, by rows or by a mask."""
        return LocalInstances(
            self.masks[keep], self.labels[keep], self.scores[keep], self.features[keep]
        )


class LocalModel:
    """Runs an inferencer's network on points without images.

    Args:
        inferencer: with the model and its test pipeline.
        score_thr: least score of an instance.

    Raises:
        TypeError: the model is no ``OneFormer3D``.
    """

    def __init__(self, inferencer: OneFormer3DInferencer, score_thr: float) -> None:
        if not isinstance(inferencer.model, OneFormer3D):
            raise TypeError(
                f'{inferencer.config_name}: streaming needs a OneFormer3D, got '
                f'{type(inferencer.model).__name__}'
            )
        self.model = inferencer.model
        # a frame is shown as it is, also where whole scans are shown in several views
        _, steps = test_settings(inferencer.config, inferencer.config_name)
        self.pipeline = [TRANSFORMS.build(step) for step in steps]
        self.score_thr = score_thr

    @property
    def num_classes(self) -> int:
        """Instance classes."""
        return len(self.model.instance_classes)

    @torch.no_grad()
    def __call__(
        self, points: NDArray[np.float32], superpoints: NDArray[np.int64]
    ) -> LocalInstances:
        """Instances of points (M, 6) with superpoints (M,) of any numbers."""
        scene: dict[str, Any] = {
            'points': points,
            'augmented_from_original': np.eye(4),
            'test_mode': False,
        }
        if self.model.use_superpoints:
            _, scene['sp_pts_mask'] = np.unique(superpoints, return_inverse=True)
        for transform in self.pipeline:
            scene = transform(scene)
        batch = self.model.data_preprocessor(pseudo_collate([scene]), False)

        features, ids = self.model.extract_feat(batch['inputs'], batch['data_samples'])
        query_ids = torch.arange(len(features[0]), device=features[0].device)
        if self.model.decoder.learned_queries:
            query_ids = None
        where = DecoderScene(batch['inputs']['points'][0], ids[0], None, query_ids)
        outputs = self.model.decode(features, [where])

        found = self.model.postprocess(outputs, 0, ids[0])
        keep = found.instance_scores >= self.score_thr
        masks = found.instance_masks[keep]
        of_points = features[0].float().cpu().numpy()[ids[0].cpu().numpy()]  # (M, D)
        of_points = of_points - of_points.mean(axis=0)
        sizes = np.maximum(masks.sum(axis=1, keepdims=True), 1)
        return LocalInstances(
            masks,
            found.instance_labels[keep].astype(np.int64),
            found.instance_scores[keep].astype(np.float32),
            (masks.astype(np.float32) @ of_points / sizes).astype(np.float32),
        )


def class_logits(labels: NDArray[np.int64], scores: NDArray, num_classes: int) -> NDArray:
    """(K, C) logits whose softmax gives the label a probability that grows with the score.

    Example:
        >>> class_logits(np.array([1]), np.array([0.8]), 3).round(3)
        array([[-2.996, -0.105, -2.996]], dtype=float32)
    """
    sure = (1 + np.asarray(scores, np.float64).clip(0, 0.999)) / 2
    rest = (1 - sure) / max(num_classes - 1, 1)
    probabilities = np.repeat(rest[:, None], num_classes, axis=1)
    probabilities[np.arange(len(labels)), labels] = sure
    return np.log(probabilities).astype(np.float32)


def distinct_masks(found: LocalInstances, overlap: float = 0.5) -> LocalInstances:
    """Without masks that a better one of any class mostly covers: a point is one object.

    Args:
        found: K instances by descending score.
        overlap: share of a mask within better ones from which it is left out.
    """
    taken = np.zeros(found.masks.shape[1], bool)
    keep, masks = [], []
    for row, mask in enumerate(found.masks):
        free = mask & ~taken
        if free.sum() > (1 - overlap) * mask.sum():
            keep.append(row)
            masks.append(free)
            taken |= mask
    kept = found.take(np.array(keep, np.int64))
    return replace(kept, masks=np.stack(masks)) if masks else kept
