"""Losses that tie fused features to frozen CLIP features.

Enters: ``FusedPoints``, of which are taken the fused features of visible points, what the frozen
maps show at those points, and the image branch's feature of each (point, view) pair. Leaves: a dict
of two scalars.
n points, p pairs, C channels of a frozen token.

Both losses compare directions after subtracting the mean over the batch. CLIP features share a
large common part, so without this a constant would already be near to all of them; with it a
constant has no direction and pays the full price.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oneformer3d.backbones.voxelize import scatter_mean
from oneformer3d.lifting.sampling import gather_pairs
from oneformer3d.registry import MODELS

from .fused_points import FusedPoints


@MODELS.register_module()
class ClipConsCriterion(nn.Module):
    """Consistency of fused features with CLIP, and of the views of a point with each other.

        L_clip = Σ_s cov_s / B · mean_i [1 − cos(h(x_i) − mean h, t_i − mean t)]
        L_view = mean_p [1 − cos(z_p − mean z, z̄_point(p) − mean z)]

    Args:
        in_channels: of the fused features.
        target_channels: C.
        loss_weight: of L_clip.
        view_weight: of L_view.
        warmup_iters: iterations over which both grow linearly to their weights.
        max_points: so many visible points of a batch are compared, drawn at random.
    """

    def __init__(
        self,
        in_channels: int = 96,
        target_channels: int = 768,
        loss_weight: float = 0.2,
        view_weight: float = 0.05,
        warmup_iters: int = 100,
        max_points: int = 4096,
    ) -> None:
        super().__init__()
        if min(loss_weight, view_weight, warmup_iters) < 0 or max_points < 1:
            raise ValueError('weights and warmup_iters must not be negative, max_points positive')
        self.head = nn.Linear(in_channels, target_channels)
        self.loss_weight = loss_weight
        self.view_weight = view_weight
        self.warmup_iters = warmup_iters
        self.max_points = max_points

    def forward(
        self,
        fused: Tensor,
        target: Tensor,
        point_weight: Tensor,
        view_features: Tensor,
        point_of_view: Tensor,
        iteration: int | None = None,
    ) -> dict[str, Tensor]:
        """Both losses; 0 where nothing is visible, with a gradient path in every case.

        Args:
            fused: (n, in_channels) features of visible points.
            target: (n, C) frozen features of the same points; never followed by gradients.
            point_weight: (n,) weight of each point, see ``coverage_weights``.
            view_features: (p, D) image branch's features of pairs of points in two or more views.
            point_of_view: (p,) int64 point of each pair, any numbering.
            iteration: of training, from 0; may be None without a warm-up.
        """
        factor = self.warmup(iteration)

        # L_clip = Σ_i w_i [1 − cos(h(x_i) − mean h, t_i − mean t)]
        predicted = centred(self.head(fused.float()).float())  # (n, C)
        distance = 1 - F.cosine_similarity(predicted, centred(target.detach().float()), dim=1)
        clip_loss = (distance * point_weight).sum()

        view_loss = cross_view_distance(view_features.float(), point_of_view)
        return {
            'clip_cons_loss': self.loss_weight * factor * clip_loss,
            'cross_view_loss': self.view_weight * factor * view_loss,
        }

    def warmup(self, iteration: int | None) -> float:
        """Factor above 0, at most 1, of an iteration; linear over ``warmup_iters``.

        Raises:
            ValueError: there is a warm-up, and the iteration is not known.
        """
        if self.warmup_iters == 0:
            return 1.0
        if iteration is None:
            raise ValueError(
                f'warmup_iters={self.warmup_iters} needs the iteration of training: the hook '
                'IterationHook among the default_hooks, or model.iteration set by hand'
            )
        return min(1.0, (iteration + 1) / self.warmup_iters)


def consistency_inputs(points: FusedPoints, max_points: int) -> dict[str, Tensor]:
    """What the criterion compares, of a batch; the arguments of its ``forward``.

    Args:
        points: of the encoder.
        max_points: so many of the visible points at most, drawn at random.

    Returns:
        ``fused``, ``target``, ``point_weight``, ``view_features`` and ``point_of_view``. Masked
        views take no part in the comparison of views.
    """
    lifted, batch = points.lifted, points.lifted.batch
    device = points.fused.device
    visible = lifted.valid.nonzero()[:, 0]
    if len(visible) > max_points:
        drawn = torch.randperm(len(visible), device=device)[:max_points]
        visible = visible[drawn.sort().values]  # (n,)

    # the pairs of these points, which are numbered anew
    row_of_point = torch.full((len(points.fused),), -1, device=device)
    row_of_point[visible] = torch.arange(len(visible), device=device)
    pairs = batch.pairs.select(row_of_point[batch.pairs.point] >= 0)
    pairs = replace(pairs, point=row_of_point[pairs.point])

    # what the frozen maps show at them
    with torch.no_grad():
        target, _ = gather_pairs(batch.maps, pairs, batch.grid, num_points=len(visible))  # (n, C)

    # what the image branch makes of each view of a point that several views see
    num_views = torch.bincount(pairs.point, minlength=len(visible))
    shared = pairs.select((num_views[pairs.point] > 1) & ~batch.masked[pairs.view])
    weighted, _ = gather_pairs(lifted.weighted_maps, shared, batch.grid, reduce=None)  # (p, D + 1)

    counts = torch.tensor(points.num_points, device=device)
    sample = torch.repeat_interleave(torch.arange(len(counts), device=device), counts)
    num_visible = torch.bincount(sample, lifted.valid.float(), minlength=len(counts))  # (B,)
    return {
        'fused': points.fused[visible],
        'target': target,
        'point_weight': coverage_weights(sample[visible], num_visible, counts),
        'view_features': weighted[:, :-1] / weighted[:, -1:],
        'point_of_view': shared.point,
    }


def coverage_weights(sample: Tensor, num_visible: Tensor, num_points: Tensor) -> Tensor:
    """Weights of points whose sum is the mean coverage of the samples.

    A sample of which little is visible counts little, and every point of it the same.

    Args:
        sample: (n,) int64 sample of each compared point.
        num_visible: (B,) visible points of each sample.
        num_points: (B,) N of each sample.

    Returns:
        (n,) float32.
    """
    coverage = num_visible / num_points.clamp(min=1)
    compared = torch.bincount(sample, minlength=len(coverage)).clamp(min=1)
    return (coverage / compared / len(coverage))[sample].float()


def cross_view_distance(view_features: Tensor, point_of_view: Tensor) -> Tensor:
    """Mean of 1 − cosine between the feature of a view and the mean over the views of its point.

    Args:
        view_features: (p, D); p = 0 gives 0.
        point_of_view: (p,) int64.
    """
    z = centred(view_features)  # (p, D)
    _, group = torch.unique(point_of_view, return_inverse=True)
    num_groups = int(group.max()) + 1 if len(group) else 0
    means = scatter_mean(z, group, num_groups)  # (points, D)

    # 1 − cos(z_p − mean z, z̄_point(p) − mean z)
    distance = 1 - F.cosine_similarity(z, means[group], dim=1)
    return distance.sum() / max(1, len(z))


def centred(x: Tensor) -> Tensor:
    """(n, D) minus the mean of the rows; n = 0 stays empty."""
    return x - x.sum(0) / max(1, len(x))
