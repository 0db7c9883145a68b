"""Where an object fits on a floor plan.

Enters: a ``FloorPlan`` with its free space. Leaves: the pose of one more object.

Each ``place_*`` function tries random positions that keep its distances and takes the first that is
free. World frame: metres, z up, the floor at z = 0; wall 0…3 are those at y0, x1, y1 and x0.
"""

from dataclasses import dataclass, field

import numpy as np

from .furniture import Blueprint
from .mesh import pose

NUM_TRIES = 60
FREE_ANGLE_WIDTH = 0.6


@dataclass
class FloorPlan:
    """What space is taken while a room is being furnished.

    Attributes:
        low, high: (2,) corners of the floor.
        footprints: (x0, y0, x1, y1) of objects that stand on the floor.
        intervals: per wall, (start, end, lowest z, highest z) of what stands or hangs there.
    """

    low: np.ndarray
    high: np.ndarray
    footprints: list[np.ndarray] = field(default_factory=list)
    intervals: tuple[list, ...] = field(default_factory=lambda: ([], [], [], []))


def wall_pose(plan: FloorPlan, wall: int, along: float, z: float, gap: float = 0.0) -> np.ndarray:
    """Pose of an object whose back is at a wall.

    Args:
        plan: the floor.
        wall: 0…3 for the walls at y0, x1, y1, x0.
        along: world x (walls 0, 2) or y (walls 1, 3) of the object's middle.
        z: height of its origin.
        gap: distance from the wall.

    Returns:
        (4, 4) ``world_from_object`` with +y pointing into the room.
    """
    (x0, y0), (x1, y1) = plan.low, plan.high
    x, y = ((along, y0 + gap), (x1 - gap, along), (along, y1 - gap), (x0 + gap, along))[wall]
    return pose(wall * np.pi / 2, (x, y, z))


def place_against_wall(
    rng: np.random.Generator, plan: FloorPlan, blueprint: Blueprint, clearance: float
) -> np.ndarray | None:
    """Find room for an object with its back to a wall and take it.

    Args:
        plan: changed when there is room.
        clearance: metres to keep free before it.

    Returns:
        (4, 4) ``world_from_object``, or None when there is no room.
    """
    width, depth, height = blueprint.size
    for _ in range(NUM_TRIES):
        wall = int(rng.integers(4))
        axis = wall % 2
        low, high = plan.low[axis] + width / 2 + 0.03, plan.high[axis] - width / 2 - 0.03
        if low > high:
            continue

        along = rng.uniform(low, high)
        gap = 0.0 if blueprint.name == 'door' else rng.uniform(0.02, 0.05)
        world_from_object = wall_pose(plan, wall, along, 0.0, gap)
        footprint = footprint_of(world_from_object, (width, depth + clearance))
        interval = (along - width / 2, along + width / 2, 0.0, height)
        if overlaps(footprint, plan.footprints, 0.06) or interval_taken(
            interval, plan.intervals[wall]
        ):
            continue
        plan.footprints.append(footprint)
        plan.intervals[wall].append(interval)
        return world_from_object
    return None


def hang_on_wall(
    rng: np.random.Generator, plan: FloorPlan, blueprint: Blueprint, z: float
) -> np.ndarray | None:
    """Find a free stretch of wall for a panel whose lower edge is at height z and take it."""
    width, _, height = blueprint.size
    for _ in range(NUM_TRIES):
        wall = int(rng.integers(4))
        low, high = plan.low[wall % 2] + width / 2, plan.high[wall % 2] - width / 2
        along = rng.uniform(low + 0.1, high - 0.1)
        interval = (along - width / 2, along + width / 2, z, z + height)
        if not interval_taken(interval, plan.intervals[wall]):
            plan.intervals[wall].append(interval)
            return wall_pose(plan, wall, along, z)
    return None


def place_on_floor(
    rng: np.random.Generator, plan: FloorPlan, blueprint: Blueprint, gap: float
) -> np.ndarray | None:
    """Find free floor away from the walls, at any angle for small objects, and take it."""
    width, depth, _ = blueprint.size
    for _ in range(NUM_TRIES):
        yaw = rng.uniform(0, 2 * np.pi) if width < FREE_ANGLE_WIDTH else rng.integers(4) * np.pi / 2
        x, y = rng.uniform(plan.low + 0.2, plan.high - 0.2)
        middle = pose(yaw, (x, y, 0.0))
        world_from_object = pose(yaw, (middle @ np.array([0, -depth / 2, 0, 1]))[:3])
        footprint = footprint_of(world_from_object, (width, depth))
        inside = min(footprint[:2] - plan.low) > gap and min(plan.high - footprint[2:]) > gap
        if inside and not overlaps(footprint, plan.footprints, gap):
            plan.footprints.append(footprint)
            return world_from_object
    return None


def footprint_of(world_from_object: np.ndarray, size: tuple[float, float]) -> np.ndarray:
    """(x0, y0, x1, y1) that encloses a width × depth rectangle before an object's back."""
    width, depth = size
    corners = np.array([(x, y, 0, 1) for x in (-width / 2, width / 2) for y in (0, depth)])
    xy = (corners @ world_from_object.T)[:, :2]
    return np.concatenate([xy.min(axis=0), xy.max(axis=0)])


def overlaps(rectangle: np.ndarray, taken: list, gap: float) -> bool:
    """Whether a rectangle comes closer than gap to one that is taken."""
    x0, y0, x1, y1 = rectangle
    return any(
        x0 < other[2] + gap and other[0] - gap < x1 and y0 < other[3] + gap and other[1] - gap < y1
        for other in taken
    )


def interval_taken(interval: tuple, taken: list, gap: float = 0.08) -> bool:
    """Whether a stretch of wall (start, end, lowest z, highest z) touches one that is taken."""
    start, end, low, high = interval
    return any(
        start < other[1] + gap
        and other[0] - gap < end
        and low < other[3] + gap
        and other[2] - gap < high
        for other in taken
    )
