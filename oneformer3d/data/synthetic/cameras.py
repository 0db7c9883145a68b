"""Where the images of a room are taken from.

Enters: a ``Room``. Leaves: intrinsics (3, 3) and poses (4, 4).

A handheld walk: most views look outwards from a loop around the middle of the room, some across it.
Axes are OpenCV's (x right, y down, z forward), poses ``world_from_cam``, the centre of the top-left
pixel is (0, 0).
"""

import numpy as np
from embreex.rtcore_scene import EmbreeScene

from .layout import Room
from .settings import RoomSettings

MIN_CLEARANCE = 0.3


def make_intrinsics(rng: np.random.Generator, settings: RoomSettings) -> np.ndarray:
    """(3, 3) intrinsics of a random field of view, square pixels, centred."""
    h, w = settings.image_size
    focal = w / 2 / np.tan(np.deg2rad(rng.uniform(*settings.field_of_view)) / 2)
    return np.array([[focal, 0, (w - 1) / 2], [0, focal, (h - 1) / 2], [0, 0, 1.0]])


def pixel_rays(
    intrinsics: np.ndarray, image_size: tuple[int, int], offset: tuple[float, float] = (0.0, 0.0)
) -> np.ndarray:
    """Camera-frame rays with z = 1.

    Args:
        intrinsics: (3, 3).
        offset: added to each pixel's (u, v).

    Returns:
        (H·W, 3) float64, row by row.
    """
    h, w = image_size
    v, u = np.mgrid[0:h, 0:w].reshape(2, -1).astype(float)
    x = (u + offset[0] - intrinsics[0, 2]) / intrinsics[0, 0]
    y = (v + offset[1] - intrinsics[1, 2]) / intrinsics[1, 1]
    return np.stack([x, y, np.ones_like(x)], axis=1)


def walk(
    rng: np.random.Generator, scene: EmbreeScene, room: Room, num_views: int
) -> list[np.ndarray]:
    """Poses of a handheld scan.

    Two of three views look outwards from a loop around the middle, every third from near the
    edge across the room. Positions closer than ``MIN_CLEARANCE`` to a surface are drawn again.

    Args:
        scene: the mesh, ready for rays.
        num_views: how many.

    Returns:
        (4, 4) ``world_from_cam`` matrices.
    """
    middle, half = (room.low + room.high)[:2] / 2, (room.high - room.low)[:2] / 2
    start = rng.uniform(0.0, 2 * np.pi)
    poses = []
    for i in range(num_views):
        angle = start + 2 * np.pi * (i + rng.uniform(-0.3, 0.3)) / num_views
        inward = i % 3 == 2

        for _ in range(20):
            radius = rng.uniform(0.65, 0.8) if inward else rng.uniform(0.05, 0.35)
            xy = middle + radius * half * (np.cos(angle), np.sin(angle))
            position = np.array([*xy, rng.uniform(1.3, 1.7)])
            if clearance(scene, position) > MIN_CLEARANCE:
                break

        heading = angle + np.pi * inward + rng.normal(0.0, 0.2)
        pitch = np.deg2rad(rng.uniform(-30, -15) if inward else rng.uniform(-25, 12))
        poses.append(look(position, heading, pitch, roll=rng.normal(0.0, np.deg2rad(3.0))))
    return poses


def clearance(scene: EmbreeScene, position: np.ndarray) -> float:
    """Distance in metres to the nearest surface, over a fan of directions."""
    angles = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    rays = np.array(
        [
            (np.cos(a) * np.cos(e), np.sin(a) * np.cos(e), np.sin(e))
            for a in angles
            for e in (-1.2, -0.5, 0.0, 0.5)
        ],
        dtype=np.float32,
    )
    origins = np.tile(position.astype(np.float32), (len(rays), 1))
    return float(scene.run(origins, rays, query='DISTANCE').min())


def look(position: np.ndarray, heading: float, pitch: float, roll: float) -> np.ndarray:
    """Pose of a camera.

    Args:
        position: (3,) metres.
        heading: radians about the vertical, 0 = +x.
        pitch: radians, positive upwards.
        roll: radians about the viewing direction.

    Returns:
        (4, 4) ``world_from_cam``, x right, y down, z forward.
    """
    forward = np.array(
        [np.cos(heading) * np.cos(pitch), np.sin(heading) * np.cos(pitch), np.sin(pitch)]
    )
    right = np.array([np.sin(heading), -np.cos(heading), 0.0])
    down = np.cross(forward, right)
    cos, sin = np.cos(roll), np.sin(roll)
    world_from_cam = np.eye(4)
    world_from_cam[:3, 0] = cos * right + sin * down
    world_from_cam[:3, 1] = cos * down - sin * right
    world_from_cam[:3, 2] = forward
    world_from_cam[:3, 3] = position
    return world_from_cam
