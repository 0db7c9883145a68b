"""PointNet++ on a batch of whole clouds: features of points → classes of points.

Enters: features (sum N, C) and xyz (sum N, 3) in metres of a batch, the samples one after another,
and N of each. Leaves: logits (sum N, num_classes). M centres of a level, E edges from a centre to
a point in its ball.

    points ─ SA1 (1024) ─ SA2 (256) ─ SA3 (64)      FPS, balls, MLP, maximum
       └─────── FP1 ─────── FP2 ────────┘           three nearest centres, MLP

A ball is the list of its edges and not a table of ``nsample`` places: rooms sampled every few
centimetres have a handful of points in a ball of 10 cm, so most of a table would be repetitions.
The maximum is the same. Qi et al., NeurIPS 2017.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oneformer3d.lifting.shapes import expect_shape

from .point_sampling import ball_edges, farthest_points, nearest_three, segment_max


class Point3DProcessor(nn.Module):
    """Point network with three levels and a head.

    Args:
        in_channels: C of the features.
        num_classes: of the logits.
        use_xyz: offsets from the centre are part of what an edge sees.
        npoint: centres of each level, fewer where a cloud is smaller.
        radius: of the balls in metres.
        nsample: most points of a ball.
        sa_channels: of the MLPs on the way down.
        fp_channels: of the MLPs on the way up, the coarsest first.
        head_channels: hidden width of the head.
        dropout: of the head.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        use_xyz: bool = True,
        npoint: Sequence[int] = (1024, 256, 64),
        radius: Sequence[float] = (0.1, 0.2, 0.4),
        nsample: int | Sequence[int] = 32,
        sa_channels: Sequence[Sequence[int]] = ((32, 32, 64), (64, 64, 128), (128, 128, 256)),
        fp_channels: Sequence[Sequence[int]] = ((256, 256), (256, 128), (128, 128, 128)),
        head_channels: int = 128,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        num_levels = len(npoint)
        samples = [nsample] * num_levels if isinstance(nsample, int) else list(nsample)
        if not num_levels == len(radius) == len(samples) == len(sa_channels) == len(fp_channels):
            raise ValueError(
                'npoint, radius, nsample, sa_channels and fp_channels differ in length'
            )
        self.in_channels = in_channels
        self.num_classes = num_classes

        # down: each level sees the channels of the one before
        widths = [in_channels]
        self.sa = nn.ModuleList()
        for level in range(num_levels):
            self.sa.append(
                PointNetSetAbstraction(
                    npoint[level],
                    radius[level],
                    samples[level],
                    widths[-1] + (3 if use_xyz else 0),
                    sa_channels[level],
                    use_xyz,
                )
            )
            widths.append(sa_channels[level][-1])

        # up: what comes from below, beside what was there on the way down
        self.fp = nn.ModuleList()
        width = widths.pop()
        for channels in fp_channels:
            self.fp.append(PointNetFeaturePropagation(width + widths.pop(), channels))
            width = channels[-1]

        self.classifier = nn.ModuleList(
            [PointMLP(width, [head_channels]), nn.Linear(head_channels, num_classes)]
        )
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, features: Tensor, points: Tensor, num_points: Sequence[int] | None = None
    ) -> Tensor:
        """Class logits.

        Args:
            features: (sum N, C), or (B, N, C).
            points: (sum N, 3) metres, or (B, N, 3).
            num_points: N of each sample; None is one sample, or what (B, N, …) says.

        Returns:
            (sum N, num_classes) or (B, N, num_classes).

        Raises:
            ValueError: shapes that do not fit, or coordinates or features that are not finite.
        """
        if features.ndim == 3:
            num_samples, num_each = features.shape[:2]
            expect_shape('points', points, 'B N 3', B=num_samples, N=num_each)
            logits = self(features.flatten(0, 1), points.flatten(0, 1), [num_each] * num_samples)
            return logits.unflatten(0, (num_samples, num_each))
        num_points = [len(points)] if num_points is None else list(num_points)
        self._check(features, points, num_points)
        counts = [count for count in num_points if count]
        if not counts:
            return features.new_zeros(0, self.num_classes)

        levels = [(points, features, counts)]
        for layer in self.sa:
            levels.append(layer(*levels[-1]))

        xyz, coarse, counts = levels.pop()
        for layer in self.fp:
            fine_xyz, fine, fine_counts = levels.pop()
            coarse = layer(fine_xyz, fine, fine_counts, xyz, coarse, counts)
            xyz, counts = fine_xyz, fine_counts

        hidden, last = self.classifier
        return last(self.dropout(hidden(coarse)))  # (sum N, num_classes)

    def _check(self, features: Tensor, points: Tensor, num_points: Sequence[int]) -> None:
        total = sum(num_points)
        expect_shape('features', features, 'N C', N=total, C=self.in_channels)
        expect_shape('points', points, 'N 3', N=total)
        for name, value in (('points', points), ('features', features)):
            if not bool(torch.isfinite(value).all()):
                raise ValueError(f'{name}: not all values are finite')


class PointNetSetAbstraction(nn.Module):
    """Centres by farthest point sampling; the maximum of an MLP over the points in each ball.

    Args:
        npoint: centres of a sample.
        radius: of a ball in metres, not included.
        nsample: most points of a ball.
        in_channel: C, and 3 more with ``use_xyz``.
        mlp: widths.
        use_xyz: offsets in radii are part of what an edge sees.
    """

    def __init__(
        self,
        npoint: int,
        radius: float,
        nsample: int,
        in_channel: int,
        mlp: Sequence[int],
        use_xyz: bool = True,
    ) -> None:
        super().__init__()
        if npoint < 1 or nsample < 1 or radius <= 0:
            raise ValueError(
                f'npoint, nsample and radius must be positive, got {npoint}, {nsample}, {radius}'
            )
        self.npoint, self.radius, self.nsample = npoint, radius, nsample
        self.use_xyz = use_xyz
        self.mlp = PointMLP(in_channel, mlp)

    def forward(
        self, xyz: Tensor, features: Tensor, num_points: Sequence[int]
    ) -> tuple[Tensor, Tensor, list[int]]:
        """xyz (sum N, 3) and features (sum N, C) → those of the centres, and M of each sample."""
        with torch.no_grad():
            chosen, counts = farthest_points(xyz, num_points, self.npoint)
            centres = xyz[chosen]
            centre, neighbour = ball_edges(
                xyz, num_points, centres, counts, self.radius, self.nsample
            )
            offset = (xyz[neighbour] - centres[centre]) / self.radius  # (E, 3)

        edges = features[neighbour]  # (E, C)
        if self.use_xyz:
            edges = torch.cat((edges, offset.to(edges)), dim=1)  # (E, C + 3)
        return centres, segment_max(self.mlp(edges), centre, len(centres)), counts


class PointNetFeaturePropagation(nn.Module):
    """Features of centres back to points: of the three nearest, weighted by inverse distance.

    Args:
        in_channel: channels of the centres and of the points together.
        mlp: widths.
    """

    def __init__(self, in_channel: int, mlp: Sequence[int]) -> None:
        super().__init__()
        self.mlp = PointMLP(in_channel, mlp)

    def forward(
        self,
        fine_xyz: Tensor,
        fine: Tensor,
        fine_counts: Sequence[int],
        xyz: Tensor,
        coarse: Tensor,
        counts: Sequence[int],
    ) -> Tensor:
        """Features (sum N, mlp[-1]) of the fine points."""
        index, weight = nearest_three(fine_xyz, fine_counts, xyz, counts)  # (sum N, 3)
        interpolated = (coarse[index] * weight[..., None].to(coarse)).sum(1)  # (sum N, C)
        return self.mlp(torch.cat((interpolated, fine), dim=1))


class PointMLP(nn.Module):
    """Linear layers, each with batch norm and ReLU, on rows.

    A batch of a single row is normalised by the running statistics: it has none of its own.
    """

    def __init__(self, in_channels: int, channels: Sequence[int]) -> None:
        super().__init__()
        widths = [in_channels, *channels]
        self.linears = nn.ModuleList([nn.Linear(a, b, bias=False) for a, b in pairwise(widths)])
        self.norms = nn.ModuleList([nn.BatchNorm1d(width) for width in channels])

    def forward(self, rows: Tensor) -> Tensor:
        """(R, in_channels) → (R, channels[-1])."""
        norms = cast(Iterable[nn.BatchNorm1d], self.norms)  # a ModuleList forgets of what
        for linear, norm in zip(self.linears, norms):
            rows = linear(rows)
            if norm.training and len(rows) < 2:
                rows = F.batch_norm(
                    rows, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps
                )
            else:
                rows = norm(rows)
            rows = F.relu(rows)
        return rows
