"""The floor of a room and what of it is taken.

Enters: the corners of a rectangle or an L. Leaves: free places along walls and on the floor.

Room frame: metres, z up, the floor at z = 0, walls along x and y. A wall runs from ``start`` along
``direction`` with the room on its left, so an object whose local x is the direction faces inwards.
Unlike those of plain rooms, objects may touch: runs of cabinets, chairs under tables.
"""

from dataclasses import dataclass, field

import numpy as np

from ..mesh import pose
from ..placement import footprint_of, interval_taken, overlaps

NUM_TRIES = 40


@dataclass
class Wall:
    """A wall: start (2,), unit direction (2,), length; taken (start, end, low z, high z)."""

    start: np.ndarray
    direction: np.ndarray
    length: float
    taken: list[tuple[float, float, float, float]] = field(default_factory=list)

    @property
    def yaw(self) -> float:
        """Radians from x to the direction."""
        return float(np.arctan2(self.direction[1], self.direction[0]))

    def pose(self, along: float, z: float = 0.0, gap: float = 0.0) -> np.ndarray:
        """(4, 4) of an object whose back stands ``gap`` before the wall at ``along``."""
        inward = np.array([-self.direction[1], self.direction[0]])
        x, y = self.start + along * self.direction + gap * inward
        return pose(self.yaw, (x, y, z))


@dataclass
class Outline:
    """A floor while it is furnished.

    Attributes:
        corners: (K, 2) of the floor, counter-clockwise.
        notch: (x0, y0, x1, y1) that an L leaves out of its rectangle, None of a rectangle.
        height: of the ceiling.
        walls: K, in the order of the corners.
        footprints: (x0, y0, x1, y1) of what stands on the floor.
    """

    corners: np.ndarray
    notch: np.ndarray | None
    height: float
    walls: list[Wall]
    footprints: list[np.ndarray] = field(default_factory=list)

    @property
    def size(self) -> np.ndarray:
        """(2,) extent of the rectangle, whose lower corner is the origin."""
        return self.corners.max(axis=0)

    def holds(self, footprint: np.ndarray, margin: float) -> bool:
        """Whether a rectangle lies on the floor with a margin to the walls."""
        inside = (footprint[:2] >= margin).all() and (footprint[2:] <= self.size - margin).all()
        return bool(inside) and (
            self.notch is None or not overlaps(footprint, [self.notch], margin)
        )

    def is_free(self, footprint: np.ndarray, gap: float) -> bool:
        """Whether nothing stands within a gap of a rectangle."""
        return not overlaps(footprint, self.footprints, gap)


def make_outline(
    rng: np.random.Generator, sizes: tuple[float, float], height: tuple[float, float]
) -> Outline:
    """A rectangle, or an L in two of five rooms.

    Args:
        sizes: range of the sides in metres.
        height: range of the ceiling in metres.
    """
    w, d = rng.uniform(*sizes), rng.uniform(sizes[0], 0.6 * sizes[1] + 0.4 * sizes[0])
    corners, notch = np.array([(0, 0), (w, 0), (w, d), (0, d)], float), None
    if rng.random() < 0.4:
        x, y = rng.uniform(0.45, 0.75) * w, rng.uniform(0.45, 0.75) * d
        corners = np.array([(0, 0), (w, 0), (w, y), (x, y), (x, d), (0, d)], float)
        notch = np.array([x, y, w, d])

    edges = np.roll(corners, -1, axis=0) - corners
    lengths = np.linalg.norm(edges, axis=1)
    walls = [
        Wall(start, edge / length, float(length))
        for start, edge, length in zip(corners, edges, lengths, strict=True)
    ]
    return Outline(corners, notch, rng.uniform(*height), walls)


def stand_at_wall(
    rng: np.random.Generator,
    plan: Outline,
    size: tuple[float, float, float],
    clearance: float = 0.1,
    gap: float = 0.02,
) -> np.ndarray | None:
    """Take a place with the back to a wall, often right beside a neighbour.

    Args:
        plan: changed when there is room.
        size: width, depth and height in metres.
        clearance: metres to keep free in front.
        gap: to the wall.

    Returns:
        (4, 4) ``room_from_object``, or None when there is no room.
    """
    width, depth, height = size
    for _ in range(NUM_TRIES):
        wall = plan.walls[rng.integers(len(plan.walls))]
        if wall.length < width + 0.04:
            continue
        along = rng.uniform(width / 2 + 0.02, wall.length - width / 2 - 0.02)
        beside = [end for _, end, low, _ in wall.taken if low < 0.1 and end + width < wall.length]
        if beside and rng.random() < 0.4:
            along = beside[rng.integers(len(beside))] + width / 2 + rng.uniform(0.005, 0.05)

        room_from_object = wall.pose(along, gap=gap)
        footprint = footprint_of(room_from_object, (width, depth + clearance))
        interval = (along - width / 2, along + width / 2, 0.0, height)
        free = plan.holds(footprint, -0.01) and plan.is_free(footprint, 0.003)
        if free and not interval_taken(interval, wall.taken, 0.003):
            plan.footprints.append(footprint_of(room_from_object, (width, depth)))
            wall.taken.append(interval)
            return room_from_object
    return None


def hang(
    rng: np.random.Generator, plan: Outline, size: tuple[float, float], z: float
) -> np.ndarray | None:
    """Take a stretch of wall, width × height, whose lower edge is at z."""
    width, height = size
    for _ in range(NUM_TRIES):
        wall = plan.walls[rng.integers(len(plan.walls))]
        if wall.length < width + 0.2 or z + height > plan.height:
            continue
        along = rng.uniform(width / 2 + 0.05, wall.length - width / 2 - 0.05)
        interval = (along - width / 2, along + width / 2, z, z + height)
        if not interval_taken(interval, wall.taken, 0.04):
            wall.taken.append(interval)
            return wall.pose(along, z, gap=rng.uniform(0.0, 0.01))
    return None


def stand_free(
    rng: np.random.Generator, plan: Outline, size: tuple[float, float], gap: float, any_turn: bool
) -> np.ndarray | None:
    """Take free floor away from the walls.

    Args:
        size: width and depth in metres.
        gap: to everything else.
        any_turn: of any angle instead of along the walls.
    """
    width, depth = size
    for _ in range(NUM_TRIES):
        yaw = rng.uniform(0, 2 * np.pi) if any_turn else rng.integers(4) * np.pi / 2
        x, y = rng.uniform((0.2, 0.2), plan.size - 0.2)
        back = pose(yaw, (x, y, 0.0)) @ np.array([0, -depth / 2, 0, 1])
        room_from_object = pose(yaw, tuple(back[:3]))
        footprint = footprint_of(room_from_object, (width, depth))
        if plan.holds(footprint, 0.08) and plan.is_free(footprint, gap):
            plan.footprints.append(footprint)
            return room_from_object
    return None
