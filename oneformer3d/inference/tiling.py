"""Large scenes in chunks: overlapping tiles, and one result from the tiles' results.

Enters: points (N, 3) in metres, z up. Leaves: tiles whose cores part the scene in plan, each with a
margin of context; later, from every tile's instance masks, masks of the whole scene. N points,
T tiles, M members of a tile, K instances of a tile, G instances of the scene, P shared points.

Every point is decided by the tile in whose core it lies, so no point is decided twice.
Two tiles' instances are one when they have the same label and agree (IoU > 0.5) on the points
that both tiles hold; each instance has at most one partner in every other tile.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from .predictions import ScanPrediction, TilePrediction


@dataclass(frozen=True)
class Tile:
    """``members`` (M,) int64 ascending point indices, core and margin; ``is_core`` (M,) bool."""

    members: np.ndarray
    is_core: np.ndarray

    @property
    def core(self) -> np.ndarray:
        """Point indices of the core."""
        return self.members[self.is_core]


def split_tiles(points: np.ndarray, max_points: int, margin: float) -> list[Tile]:
    """Halve the scene's plan across its longer side until every tile is small enough.

    Args:
        points: (N, 3) metres.
        max_points: most points of a tile, margin included.
        margin: context around a core in metres.

    Returns:
        Tiles; one that holds everything when the scene is small enough.

    Raises:
        ValueError: a tile no wider than the margin still has too many points.
    """
    if max_points < 1 or margin < 0:
        raise ValueError(f'expected max_points >= 1 and margin >= 0, got {max_points}, {margin}')

    plan = np.asarray(points)[:, :2]  # (N, 2)
    tiles = []
    boxes = [(np.full(2, -np.inf), np.full(2, np.inf))]
    while boxes:
        low, high = boxes.pop()
        # A core's upper border belongs to the next one.
        around = ((plan >= low - margin) & (plan < high + margin)).all(axis=1)
        members = np.flatnonzero(around)
        is_core = np.all((plan[members] >= low) & (plan[members] < high), axis=1)
        core = plan[members[is_core]]

        if len(members) <= max_points:
            if len(core):
                tiles.append(Tile(members, is_core))
            continue

        # too many: halve the core across its longer side
        extent = np.ptp(core, axis=0) if len(core) else np.zeros(2)
        axis = int(extent[1] > extent[0])
        border = float(np.median(core[:, axis])) if len(core) else 0.0
        if extent[axis] <= max(margin, 1e-6) or border <= core[:, axis].min():
            raise ValueError(
                f'{len(members)} points within {extent[axis] + 2 * margin:.2g} m exceed the '
                f'{max_points} that are segmented at a time: thin the cloud or allow more'
            )

        lower_high, upper_low = high.copy(), low.copy()
        lower_high[axis] = upper_low[axis] = border
        boxes += [(upper_low, high), (low, lower_high)]
    return tiles


def match_across_tiles(
    tiles: Sequence[Tile],
    masks: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    min_iou: float = 0.5,
) -> tuple[list[np.ndarray], int]:
    """Which instances of different tiles are the same object.

    Args:
        tiles: T tiles.
        masks: for each tile (K, M) bool over its members.
        labels: for each tile (K,) class of each instance.
        min_iou: least agreement on shared points.

    Returns:
        For each tile (K,) int64 the number of the scene's instance, and how many these are (G).
    """
    starts = np.concatenate([[0], np.cumsum([len(mask) for mask in masks])])
    pairs = []
    for a in range(len(tiles)):
        for b in range(a + 1, len(tiles)):
            rows, columns = _same_objects(
                (tiles[a].members, masks[a], labels[a]),
                (tiles[b].members, masks[b], labels[b]),
                min_iou,
            )
            pairs.append(np.stack([rows + starts[a], columns + starts[b]]))

    # objects are the connected components of the pairs
    total = int(starts[-1])
    source, target = np.concatenate(pairs, axis=1) if pairs else np.zeros((2, 0), dtype=np.int64)
    graph = coo_matrix((np.ones(len(source)), (source, target)), shape=(total, total))
    num_groups, groups = connected_components(graph, directed=False)
    return [groups[a:b].astype(np.int64) for a, b in pairwise(starts)], num_groups


def merge_masks(
    tiles: Sequence[Tile],
    masks: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    scores: Sequence[np.ndarray],
    min_iou: float = 0.5,
) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Instances of the scene from the instances of its tiles.

    Args:
        tiles: T tiles.
        masks: for each tile (K, M) bool.
        labels: for each tile (K,) integer.
        scores: for each tile (K,).
        min_iou: see ``match_across_tiles``.

    Returns:
        G point-index arrays, ascending; labels (G,) int64; scores (G,) float32, the best of an
        instance's parts. Instances come in the order of their first part; one that lies in
        margins only is left out, since the tile whose core that is did not find it.
    """
    groups, num_groups = match_across_tiles(tiles, masks, labels, min_iou)

    parts: list[list[np.ndarray]] = [[] for _ in range(num_groups)]
    group_label = np.zeros(num_groups, dtype=np.int64)
    group_score = np.full(num_groups, -np.inf, dtype=np.float32)
    for tile, tile_masks, tile_labels, tile_scores, tile_groups in zip(
        tiles, masks, labels, scores, groups
    ):
        for mask, label, score, group in zip(tile_masks, tile_labels, tile_scores, tile_groups):
            parts[group].append(tile.members[mask & tile.is_core])
            group_label[group] = label
            group_score[group] = max(group_score[group], score)

    members = [p[0] if len(p) == 1 else np.unique(np.concatenate(p)) for p in parts]
    keep = [group for group in range(num_groups) if len(members[group])]
    return [members[group] for group in keep], group_label[keep], group_score[keep]


def gather_core(tiles: Sequence[Tile], values: Sequence[np.ndarray], num_points: int) -> np.ndarray:
    """Per-point values (M,) of each tile → (N,), every point from the tile whose core it is in."""
    result = np.empty(num_points, dtype=np.asarray(values[0]).dtype)
    for tile, tile_values in zip(tiles, values):
        result[tile.core] = tile_values[tile.is_core]
    return result


def merge_predictions(
    tiles: Sequence[Tile],
    predictions: Sequence[TilePrediction],
    num_points: int,
    stuff: Sequence[int],
) -> ScanPrediction:
    """One result of the scene from the predictions of its tiles.

    Args:
        tiles: T tiles.
        predictions: of each tile.
        num_points: N.
        stuff: classes that are stuff.

    Returns:
        Of the N points; instances by descending score, things numbered without gaps.
    """
    members, classes, scores = merge_masks(
        tiles,
        [p.masks for p in predictions],
        [p.classes for p in predictions],
        [p.scores for p in predictions],
    )
    order = np.argsort(-scores, kind='stable')

    # stuff by class; panoptic things are merged like instances and numbered anew
    first_thing = max(stuff, default=-1) + 1
    panoptic_semantic = gather_core(tiles, [p.panoptic_semantic for p in predictions], num_points)
    things = [_thing_masks(p, first_thing) for p in predictions]
    segments, segment_classes, _ = merge_masks(
        tiles,
        [masks for masks, _ in things],
        [labels for _, labels in things],
        [np.zeros(len(masks)) for masks, _ in things],
    )

    panoptic = np.where(np.isin(panoptic_semantic, stuff), panoptic_semantic, -1).astype(np.int64)
    for rank, (segment, label) in enumerate(zip(segments, segment_classes)):
        panoptic[segment] = first_thing + rank
        panoptic_semantic[segment] = label

    return ScanPrediction(
        gather_core(tiles, [p.semantic for p in predictions], num_points),
        panoptic_semantic,
        panoptic,
        tuple(members[k] for k in order),
        classes[order],
        scores[order],
    )


def _same_objects(
    first: tuple[np.ndarray, np.ndarray, np.ndarray],
    second: tuple[np.ndarray, np.ndarray, np.ndarray],
    min_iou: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of two tiles' (members, masks, labels) that pair up, one to one, best IoU in total."""
    members_a, masks_a, labels_a = first
    members_b, masks_b, labels_b = second
    none = np.zeros(0, dtype=np.int64)
    if len(masks_a) == 0 or len(masks_b) == 0:
        return none, none
    _, in_a, in_b = np.intersect1d(members_a, members_b, assume_unique=True, return_indices=True)
    if len(in_a) == 0:
        return none, none

    # IoU on the shared points = |A ∩ B| / (|A| + |B| − |A ∩ B|)
    shared_a = masks_a[:, in_a].astype(np.float32)  # (K_a, P)
    shared_b = masks_b[:, in_b].astype(np.float32)
    both = shared_a @ shared_b.T  # (K_a, K_b)
    either = shared_a.sum(1)[:, None] + shared_b.sum(1)[None] - both
    iou = both / np.maximum(either, 1)
    iou[(iou <= min_iou) | (labels_a[:, None] != labels_b[None])] = 0

    rows, columns = linear_sum_assignment(-iou)
    paired = iou[rows, columns] > 0
    return rows[paired], columns[paired]


def _thing_masks(prediction: TilePrediction, first_thing: int) -> tuple[np.ndarray, np.ndarray]:
    """Panoptic things of a tile (K of them): masks (K, M) bool and classes (K,)."""
    ids, first = np.unique(prediction.panoptic, return_index=True)
    things = ids >= first_thing
    masks = prediction.panoptic[None] == ids[things, None]
    return masks, prediction.panoptic_semantic[first[things]]
