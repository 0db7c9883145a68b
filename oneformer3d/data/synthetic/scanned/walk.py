"""A hand-held walk through part of a room, and what the tracker makes of it.

Enters: a mesh ready for rays. Leaves: true poses (4, 4), and the same with a tracker's errors.
"""

import numpy as np
from embreex.rtcore_scene import EmbreeScene

from ..cameras import clearance, look
from ..layout import Room
from .settings import ScannedSettings

MIN_CLEARANCE = 0.25
NUM_TRIES = 200


def walk_through(
    rng: np.random.Generator, scene: EmbreeScene, room: Room, num_views: int
) -> list[np.ndarray]:
    """Poses along a way through a room that turns by 150 to 500 degrees.

    Some walks look up to the ceiling, most look down at the furniture.

    Args:
        scene: the mesh, ready for rays.
        num_views: how many; fewer where the way is blocked.

    Returns:
        (4, 4) ``room_from_cam``, at least one.
    """
    stops = [_free_position(rng, scene, room) for _ in range(int(rng.integers(2, 6)))]
    start, span = rng.uniform(0, 2 * np.pi), np.radians(rng.uniform(150, 500))
    high = rng.random() < 0.35
    base = np.radians(rng.uniform(-12, 12) if high else rng.uniform(-38, -10))
    at = np.linspace(0, len(stops) - 1, num_views)
    way = np.stack([np.interp(at, np.arange(len(stops)), axis) for axis in np.array(stops).T], 1)

    poses = []
    for i, position in enumerate(way):
        heading = start + span * i / num_views + rng.normal(0, 0.12)
        pitch = base + rng.normal(0, 0.15) + 0.15 * np.sin(1.1 * i)
        if clearance(scene, position) < MIN_CLEARANCE:
            position = stops[min(round(at[i]), len(stops) - 1)]
        poses.append(look(position, heading, pitch, roll=rng.normal(0.0, np.radians(3.0))))
    return poses


def _free_position(rng: np.random.Generator, scene: EmbreeScene, room: Room) -> np.ndarray:
    """A place where one can stand, the farthest from everything if none is really free."""
    best, most = np.append((room.low + room.high)[:2] / 2, 1.5), -1.0
    for _ in range(NUM_TRIES):
        xy = rng.uniform(room.low[:2] + 0.4, room.high[:2] - 0.4)
        position = np.array([*xy, rng.uniform(1.2, 1.75)])
        # in the notch of an L no ray comes back from below
        down = scene.run(position[None].astype(np.float32), np.array([[0, 0, -1]], np.float32))
        if down[0] < 0:
            continue
        free = clearance(scene, position)
        if free > 0.4:
            return position
        if free > most:
            best, most = position, free
    return best


def tracked(
    rng: np.random.Generator, poses: list[np.ndarray], settings: ScannedSettings
) -> list[np.ndarray]:
    """Poses as a tracker reports them: each a little off, and drifting.

    Args:
        settings: ``pose_shift``, ``pose_turn``: the levels of which one is drawn per scan.
    """
    shift, turn = rng.uniform(*settings.pose_shift), np.radians(rng.uniform(*settings.pose_turn))
    drift = rng.normal(0, 0.35, (len(poses), 6)).cumsum(axis=0)
    drift -= drift.mean(axis=0)

    found = []
    for pose, slow in zip(poses, drift, strict=True):
        error = rng.normal(0, 0.7, 6) + slow
        cam_from_true = np.eye(4)
        cam_from_true[:3, :3] = small_rotation(turn * error[:3])
        cam_from_true[:3, 3] = shift * error[3:]
        found.append(pose @ cam_from_true)
    return found


def small_rotation(axis_angle: np.ndarray) -> np.ndarray:
    """(3, 3) rotation about an axis by its length in radians (Rodrigues' formula)."""
    angle = float(np.linalg.norm(axis_angle))
    if angle == 0:
        return np.eye(3)
    x, y, z = axis_angle / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
