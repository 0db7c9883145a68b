"""Geometry of a point network: centres, the points around them, and the way back.

Enters: xyz (sum N, 3) in metres of a batch, the samples one after another, and N of each. Leaves:
rows of centres, edges (E,) from centres to points, interpolation weights. Samples never meet.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from scipy.spatial import KDTree
from torch import Tensor

from .neighbourhoods import ball_query

_BYTE_BUDGET = 64 << 20


@torch.no_grad()
def farthest_points(xyz: Tensor, num_points: Sequence[int], count: int) -> tuple[Tensor, list[int]]:
    """Farthest point sampling of every sample.

    Starts at the point farthest from the mean; of equally far points the first is taken.

    Args:
        xyz: (sum N, 3).
        num_points: N of each sample, at least 1.
        count: points to choose; all of a smaller sample.

    Returns:
        (sum M,) int64 rows of the points in order of choice, and M of each sample.
    """
    chosen, counts, begin = [], [], 0
    for num in num_points:
        columns = xyz[begin : begin + num].T.float().contiguous()
        counts.append(min(count, num))
        chosen.append(_farthest(columns, counts[-1]) + begin)
        begin += num
    return torch.cat(chosen), counts


def _farthest(columns: Tensor, count: int) -> Tensor:
    """Of points as columns (3, N)."""
    if not columns.is_cuda:
        return torch.from_numpy(_farthest_numpy(columns.numpy(), count))

    index = _squared(columns, columns.mean(1)).argmax()
    least = torch.full_like(columns[0], torch.inf)
    chosen = []
    for _ in range(count):
        chosen.append(index)
        # d(x) = min over chosen c of ‖x − c‖²; the next choice has the largest d
        least = torch.minimum(least, _squared(columns, columns[:, index]))
        index = least.argmax()
    return torch.stack(chosen)


def _farthest_numpy(columns: np.ndarray, count: int) -> np.ndarray:
    """As the loop above; numpy's small operations cost a tenth of torch's."""
    x, y, z = columns
    distance = np.empty_like(x)
    scratch = np.empty_like(x)
    least = np.full_like(x, np.inf)
    chosen = np.empty(count, dtype=np.int64)

    def measure(cx, cy, cz) -> None:
        np.subtract(x, cx, out=distance)
        np.multiply(distance, distance, out=distance)
        for values, centre in ((y, cy), (z, cz)):
            np.subtract(values, centre, out=scratch)
            np.multiply(scratch, scratch, out=scratch)
            np.add(distance, scratch, out=distance)

    # d(x) = min over chosen c of ‖x − c‖²; the next choice has the largest d
    measure(*columns.mean(1))
    index = int(distance.argmax())
    for i in range(count):
        chosen[i] = index
        measure(x[index], y[index], z[index])
        np.minimum(least, distance, out=least)
        index = int(least.argmax())
    return chosen


@torch.no_grad()
def ball_edges(
    xyz: Tensor,
    num_points: Sequence[int],
    centres: Tensor,
    num_centres: Sequence[int],
    radius: float,
    nsample: int,
) -> tuple[Tensor, Tensor]:
    """Points nearer than ``radius`` to the centres of their sample, at most ``nsample`` of each.

    Returns:
        centre (E,) int64, ascending, and point (E,) int64.
    """
    sample, centre_sample = _sample_of(num_points, xyz), _sample_of(num_centres, xyz)
    # The grid of the query counts cells from zero, within each sample.
    local = xyz.float() - _minimum(xyz.float(), num_points)[sample]
    local_centres = centres.float() - _minimum(xyz.float(), num_points)[centre_sample]

    table, filled = ball_query(local, sample, local_centres, centre_sample, radius, nsample)
    centre, _ = filled.nonzero(as_tuple=True)
    return centre, table[filled]


@torch.no_grad()
def nearest_three(
    fine_xyz: Tensor, fine_counts: Sequence[int], xyz: Tensor, counts: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """The three nearest coarse points of each fine point, of its sample, and their weights.

    Weights are inverse distances with sum 1. Samples of fewer than three coarse points repeat
    the first with weight 0.

    Returns:
        index (sum N, 3) int64 and weight (sum N, 3) float32.
    """
    indices, weights, begin, fine_begin = [], [], 0, 0
    for fine_count, count in zip(fine_counts, counts):
        fine = fine_xyz[fine_begin : fine_begin + fine_count].float()
        coarse = xyz[begin : begin + count].float()
        distance, index = _nearest(fine, coarse, min(3, count))  # (N, ≤ 3)

        # w_i = (1 / d_i) / Σ_j 1 / d_j, zero where there is no third point
        weight = 1 / distance.clamp(min=1e-6)
        weight = F.pad(weight / weight.sum(1, keepdim=True), (0, 3 - weight.shape[1]))
        indices.append(F.pad(index, (0, 3 - index.shape[1])) + begin)
        weights.append(weight)
        begin += count
        fine_begin += fine_count
    return torch.cat(indices), torch.cat(weights)


def _nearest(fine: Tensor, coarse: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Distances and rows (N, k) of the nearest coarse points."""
    if not fine.is_cuda:
        distances, rows = KDTree(coarse.numpy()).query(fine.numpy(), k)
        shape = (len(fine), k)  # the tree drops a k of 1
        return (
            torch.from_numpy(distances).float().reshape(shape),
            torch.from_numpy(rows).long().reshape(shape),
        )
    size = max(1, _BYTE_BUDGET // (8 * len(coarse)))
    chunks = [
        torch.cdist(chunk, coarse, compute_mode='donot_use_mm_for_euclid_dist').topk(
            k, dim=1, largest=False
        )
        for chunk in fine.split(size)
    ]
    return torch.cat([x[0] for x in chunks]), torch.cat([x[1] for x in chunks])


def segment_max(rows: Tensor, segment: Tensor, num_segments: int) -> Tensor:
    """Largest value of the rows (E, C) of each segment, (num_segments, C); each has a row."""
    counts = torch.bincount(segment, minlength=num_segments)
    return torch.segment_reduce(rows, 'max', lengths=counts, axis=0)


def _squared(columns: Tensor, point: Tensor) -> Tensor:
    return ((columns - point[:, None]) ** 2).sum(0)


def _sample_of(counts: Sequence[int], like: Tensor) -> Tensor:
    index = torch.arange(len(counts), device=like.device)
    return index.repeat_interleave(torch.tensor(list(counts), device=like.device))


def _minimum(xyz: Tensor, num_points: Sequence[int]) -> Tensor:
    return torch.stack([part.amin(0) for part in xyz.split(list(num_points))])
