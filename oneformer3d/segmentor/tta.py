"""Test-time augmentation: one result from what a network says of several views of a scene.

Enters: the batch of ``TestTimeAug``, ``inputs`` and ``data_samples`` of V views, in which the same
points are mirrored and turned about the vertical. Leaves: data samples with ``pred_pts_seg``, one
per scene, as of the network alone. Views are summed one by one: memory does not grow with V.

Letters: Q queries, S superpoints (or voxels), N points, C semantic classes, P pairs of queries.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from mmdet3d.structures import Det3DDataSample
from mmengine.model import BaseTTAModel
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from oneformer3d.registry import MODELS

from .oneformer3d import OneFormer3D, with_prediction
from .postprocess import SceneLogits, soft_iou

_LEAST = 1e-7  # of a probability, so that its logit is finite
_LEAST_IOU = 0.25  # of masks of the same object in two views


@MODELS.register_module()
class OneFormer3DTTA(BaseTTAModel):
    """A ``OneFormer3D`` that looks at every scene several times.

    A superpoint's semantic class is that of the mean of the views' class probabilities.

    Instances are averaged, query by query, before any of them is chosen: the mask is the mean of
    the probabilities, the class the normalised geometric mean, which stays as sharp as that of one
    view, so that thresholds of scores keep their meaning. An object that one view misses so loses
    score and not its mask, and none is found twice. Where superpoints are the queries,
    query i asks in every view for the object that superpoint i lies on. Learned queries go to the
    queries of the first view whose masks they overlap most, one to one, and voxels of another
    view to those of the first by the points they share. (Joining the views' instances under NMS
    lost half of AP50 on generated rooms: masks that differ a little all stay.)

    Args:
        module: settings of the ``OneFormer3D``, or the model.
    """

    def __init__(self, module: dict[str, Any] | nn.Module) -> None:
        # built here: the base class would look the name up in mmengine's own registry
        module = module if isinstance(module, nn.Module) else MODELS.build(module)
        if not isinstance(module, OneFormer3D):
            raise TypeError(f'OneFormer3DTTA: expected a OneFormer3D, got {type(module).__name__}')
        super().__init__(module)

    @torch.no_grad()
    def test_step(self, data: dict[str, Any]) -> list[Det3DDataSample]:
        """Predictions of the scenes of a batch.

        Args:
            data: ``inputs`` and ``data_samples``, a list of V each; the samples of the first view
                are returned.

        Raises:
            ValueError: views of different points.
        """
        model = cast(OneFormer3D, self.module)
        first_samples: list[Det3DDataSample] = []
        sums: list[SceneSum] = []
        for inputs, samples in zip(data['inputs'], data['data_samples'], strict=True):
            view = model.data_preprocessor({'inputs': inputs, 'data_samples': samples})
            outputs, units = model.decode_all(view['inputs'], view['data_samples'])

            scenes = [view_sum(model.scene_logits(outputs, i), ids) for i, ids in enumerate(units)]
            if not sums:
                first_samples, sums = view['data_samples'], scenes
            elif model.use_superpoints and not model.decoder.learned_queries:
                sums = [add_same(total, scene) for total, scene in zip(sums, scenes)]
            else:
                sums = [add_matched(total, scene) for total, scene in zip(sums, scenes)]

        return [
            with_prediction(sample, model.label_points(total.mean(), total.units))
            for sample, total in zip(first_samples, sums)
        ]

    def merge_preds(self, data_samples_list: Sequence[Any]) -> list[Det3DDataSample]:
        """Not used: what is averaged are probabilities, which predictions no longer have."""
        raise NotImplementedError('OneFormer3DTTA averages before labels are made: see test_step')


@dataclass(frozen=True)
class SceneSum:
    """What views say of one scene, summed.

    Attributes:
        classes: (Q, C_inst + 1) log-probabilities.
        masks: (Q, S) probabilities.
        scores: (Q, 1), or None.
        counts: (Q, 1) views that each query is a sum of.
        semantic: (S, C) probabilities.
        units: (N,) int64, the superpoint or voxel of every point.
    """

    classes: Tensor
    masks: Tensor
    scores: Tensor | None
    counts: Tensor
    semantic: Tensor
    units: Tensor

    def mean(self) -> SceneLogits:
        """Logits of the means: their softmax and sigmoid are the means again."""
        return SceneLogits(
            classes=self.classes / self.counts,
            masks=torch.logit(self.masks / self.counts, eps=_LEAST),
            scores=None if self.scores is None else self.scores / self.counts,
            # a factor does not change which class is the likeliest
            semantic=self.semantic.clamp(min=_LEAST).log(),
        )


def view_sum(logits: SceneLogits, units: Tensor) -> SceneSum:
    """Of one view, in float32."""
    return SceneSum(
        logits.classes.float().log_softmax(1),
        logits.masks.float().sigmoid(),
        None if logits.scores is None else logits.scores.float(),
        logits.classes.new_ones((len(logits.classes), 1), dtype=torch.float32),
        logits.semantic.float().softmax(1),
        units,
    )


def add_same(total: SceneSum, view: SceneSum) -> SceneSum:
    """The sum with one view more, whose queries and superpoints are the same.

    Raises:
        ValueError: other superpoints.
    """
    if not torch.equal(total.units, view.units):
        raise ValueError('test-time augmentation: the views have other points or superpoints')
    queries = torch.arange(len(total.classes), device=total.classes.device)
    return _added(total, view, queries, queries)


def add_matched(total: SceneSum, view: SceneSum) -> SceneSum:
    """The sum with one view more, of learned queries and voxels of its own.

    Queries of the view that overlap none of the sum's are left out.

    Raises:
        ValueError: another number of points.
    """
    if len(total.units) != len(view.units):
        raise ValueError(
            f'test-time augmentation: views of {len(total.units)} and {len(view.units)} points'
        )
    moved = shares(total.units, view.units)  # (S, S of the view)
    masks = (moved @ view.masks.T).T  # (Q, S)
    view = replace(view, masks=masks, semantic=moved @ view.semantic, units=total.units)

    iou = soft_iou(total.masks / total.counts, masks)  # (Q, Q)
    rows, columns = linear_sum_assignment(iou.cpu().numpy(), maximize=True)
    pairs = torch.as_tensor([rows.tolist(), columns.tolist()], device=iou.device)  # (2, Q)
    queries, others = pairs[:, iou[pairs[0], pairs[1]] > _LEAST_IOU]  # (P,) each
    return _added(total, view, queries, others)


def _added(total: SceneSum, view: SceneSum, queries: Tensor, others: Tensor) -> SceneSum:
    """Queries (P,) of the sum with the view's queries ``others`` (P,) added."""

    def add(values: Tensor, more: Tensor) -> Tensor:
        return values.index_add(0, queries, more[others])

    scores = total.scores
    if scores is not None and view.scores is not None:
        scores = add(scores, view.scores)
    return SceneSum(
        add(total.classes, view.classes),
        add(total.masks, view.masks),
        scores,
        add(total.counts, view.counts),
        total.semantic + view.semantic,
        total.units,
    )


def shares(units: Tensor, others: Tensor) -> Tensor:
    """Which part of the points of each unit lies in each of the other view's units.

    Args:
        units: (N,) int64 in 0…S−1.
        others: (N,) int64 in 0…T−1.

    Returns:
        (S, T) sparse float32, whose rows sum to 1.

    Example:
        >>> shares(torch.tensor([0, 0, 1]), torch.tensor([1, 0, 1])).to_dense()
        tensor([[0.5000, 0.5000],
                [0.0000, 1.0000]])
    """
    sizes = torch.bincount(units)  # (S,)
    size = (len(sizes), int(others.max()) + 1)
    weights = 1 / sizes[units].float()  # (N,)
    return torch.sparse_coo_tensor(torch.stack([units, others]), weights, size).coalesce()
