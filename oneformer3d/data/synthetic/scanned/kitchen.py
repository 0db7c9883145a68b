"""A fitted kitchen: base cabinets along one wall or two, a worktop, cabinets above.

Enters: an ``Outline``. Leaves: placed blueprints. The base of one run is one cabinet, its worktop
one counter, as people label them: no gap shows where units meet.
"""

import numpy as np

from ..furniture import Blueprint
from ..mesh import Part, box
from ..placement import footprint_of, interval_taken
from ..textures import Material
from .clutter import make_thing
from .finish import finish
from .furniture import BODY, basin, fronts, make_refrigerator
from .outline import Outline, Wall, stand_at_wall

Placed = tuple[Blueprint, np.ndarray]
DEPTH, TOP = 0.6, 0.04


def fit_kitchen(rng: np.random.Generator, plan: Outline) -> list[Placed]:
    """Fit a kitchen to a wall, with a leg along the next one in every other room.

    Returns:
        What was placed; nothing where no wall is free.
    """
    for index in rng.permutation(len(plan.walls)):
        wall, following = plan.walls[index], plan.walls[(index + 1) % len(plan.walls)]
        length = min(rng.uniform(1.6, 4.2), wall.length - 0.1)
        # a leg needs a corner that the room fills, not one that the notch of an L does
        convex = _turn(wall.direction, following.direction) > 0
        has_leg = convex and rng.random() < 0.55 and following.length > 1.6
        start = wall.length - length if has_leg else rng.uniform(0.0, wall.length - length)
        leg = min(rng.uniform(0.6, 2.2), following.length - DEPTH - 0.3) if has_leg else 0.0

        runs = [(wall, start, start + length)]
        if leg > 0.4:
            runs.append((following, DEPTH, DEPTH + leg))
        if length > 1.2 and all(_is_free(plan, *run) for run in runs):
            for run in runs:
                _take(plan, *run)
            return _build(rng, plan, runs)
    return []


def _build(
    rng: np.random.Generator, plan: Outline, runs: list[tuple[Wall, float, float]]
) -> list[Placed]:
    height, body, door = rng.uniform(0.78, 0.92), finish(rng, *BODY), finish(rng, *BODY, 'vivid')
    top = finish(rng, 'gray', 'dark', 'wood', 'white', 'pale')
    frame = runs[0][0].pose(0.0)  # everything of the kitchen in the frame of its first wall
    to_frame = np.linalg.inv(frame)

    base, worktop, placed = [], [], []
    for wall, start, end in runs:
        local = to_frame @ wall.pose((start + end) / 2)
        x = (end - start) / 2
        plinth = rng.uniform(0.06, 0.14)
        base += _moved(
            [
                Part(box((-x, 0.01, plinth), (x, DEPTH - 0.04, height - TOP)), body),
                Part(box((-x, 0.01, 0), (x, DEPTH - 0.09, plinth)), finish(rng, 'dark', 'gray')),
                *fronts(rng, door, (-x, x), DEPTH - 0.04, (plinth, height - TOP)),
            ],
            local,
        )
        board = box((-x, 0.0, height - TOP), (x, DEPTH + 0.02, height))
        worktop += _moved([Part(board, top)], local)
        placed += _upper(rng, plan, wall, (start, end), door)
        placed += _on_worktop(rng, wall, (start, end), height)

    size = (runs[0][2] - runs[0][1], DEPTH, height)
    placed.insert(0, (Blueprint('cabinet', tuple(base), size), frame))
    placed.insert(1, (Blueprint('counter', tuple(worktop), size), frame))
    return placed


def _upper(
    rng: np.random.Generator,
    plan: Outline,
    wall: Wall,
    run: tuple[float, float],
    door: Material,
) -> list[Placed]:
    """Cabinets above a run, over all of it or a part, each stretch one instance."""
    placed = []
    low = rng.uniform(1.3, 1.5)
    high = min(low + rng.uniform(0.5, 0.85), plan.height - 0.05)
    depth, at = rng.uniform(0.28, 0.4), run[0]
    while at < run[1] - 0.4 and rng.random() < 0.85:
        width = min(rng.uniform(0.6, 2.4), run[1] - at)
        interval = (at, at + width, low, high)
        if not interval_taken(interval, wall.taken, 0.0) and high - low > 0.4:
            wall.taken.append(interval)
            x, h = width / 2, high - low
            parts = [Part(box((-x, 0, 0), (x, depth - 0.02, h)), finish(rng, 'white', 'wood'))]
            parts += fronts(rng, door, (-x, x), depth - 0.02, (0, h))
            blueprint = Blueprint('cabinet', tuple(parts), (width, depth, h))
            placed.append((blueprint, wall.pose(at + x, low)))
        at += width + rng.choice([0.0, rng.uniform(0.3, 1.0)])
    return placed


def _on_worktop(
    rng: np.random.Generator, wall: Wall, run: tuple[float, float], height: float
) -> list[Placed]:
    """A sink, and things side by side."""
    placed, at = [], run[0] + 0.1
    while at < run[1] - 0.35:
        if rng.random() < 0.15 and run[1] - at > 0.6:
            w, steel = rng.uniform(0.4, 0.55), finish(rng, 'gray', 'white')
            tub = Blueprint('sink', tuple(basin(steel, w, 0.42, 0.09, 0.085)), (w, 0.42, 0.09))
            placed.append((tub, wall.pose(at + w / 2, height, gap=0.08)))
            at += w + 0.1
            continue
        thing = make_thing(rng)
        width, depth, _ = thing.size
        if width < run[1] - at:
            gap = rng.uniform(0.02, max(0.03, DEPTH - depth - 0.02))
            placed.append((thing, wall.pose(at + width / 2, height, gap=gap)))
        at += width + rng.choice([0.02, rng.uniform(0.02, 0.5), rng.uniform(0.2, 1.2)])
    return placed


def place_refrigerator(rng: np.random.Generator, plan: Outline) -> list[Placed]:
    """A refrigerator, most often beside what stands at a wall already."""
    blueprint = make_refrigerator(rng)
    position = stand_at_wall(rng, plan, blueprint.size)
    return [] if position is None else [(blueprint, position)]


def _turn(a: np.ndarray, b: np.ndarray) -> float:
    return float(a[0] * b[1] - a[1] * b[0])


def _moved(parts: list[Part], transform: np.ndarray) -> list[Part]:
    for part in parts:
        part.mesh.apply_transform(transform)
    return parts


def _is_free(plan: Outline, wall: Wall, start: float, end: float) -> bool:
    footprint = footprint_of(wall.pose((start + end) / 2), (end - start, DEPTH + 0.3))
    interval = (start, end, 0.0, 0.95)
    return (
        plan.holds(footprint, -0.01)
        and plan.is_free(footprint, 0.0)
        and not interval_taken(interval, wall.taken, 0.0)
    )


def _take(plan: Outline, wall: Wall, start: float, end: float) -> None:
    plan.footprints.append(footprint_of(wall.pose((start + end) / 2), (end - start, DEPTH)))
    wall.taken.append((start, end, 0.0, 0.95))
