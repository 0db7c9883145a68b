"""Which way is up in a scan, and how to turn it so that z is up.

Enters: the name of an axis, camera poses (F, 4, 4), points (N, 3). Leaves: a unit vector (3,) or a
rotation (3, 3). Networks are trained on scans whose z axis points up; a hand-held RGB-D camera
calls its first frame the world.
"""

import numpy as np

from .local_surfaces import normals_of_neighbors

AXES = ('x', 'y', 'z', '-x', '-y', '-z')
_LEVEL = np.cos(np.radians(35))  # cameras whose up is nearer to z than this were converted to it


def up_from_axis(name: str) -> np.ndarray:
    """(3,) unit vector of 'x', 'y', 'z', '-x', '-y' or '-z'; another name is a ValueError."""
    if name not in AXES:
        raise ValueError(f'up: expected one of {", ".join(AXES)}, got {name!r}')
    up = np.zeros(3)
    up['xyz'.index(name[-1])] = -1.0 if name[0] == '-' else 1.0
    return up


def up_from_cameras(world_from_cam: np.ndarray) -> np.ndarray:
    """Mean upward direction of images: people hold cameras level, more or less.

    Args:
        world_from_cam: (F, 4, 4) poses, F ≥ 1, y down in the image.

    Returns:
        (3,) unit vector in the world.

    Raises:
        ValueError: the cameras' directions cancel out.
    """
    mean = -np.asarray(world_from_cam, dtype=np.float64)[:, :3, 1].mean(axis=0)
    length = np.linalg.norm(mean)
    if not length > 0.2:
        raise ValueError('the cameras do not agree which way is up: name the axis')
    return mean / length


def up_of_frames(points: np.ndarray, world_from_cam: np.ndarray) -> np.ndarray:
    """Cameras are held upright; the floor says so more exactly.

    Args:
        points: (N, ≥ 3) metres in the world, what the cameras saw.
        world_from_cam: (F, 4, 4) poses, F ≥ 1, y down in the image.

    Returns:
        (3,) unit vector: z where the cameras' mean is near it, else their mean after ``refine_up``.

    Raises:
        ValueError: the cameras' directions cancel out.
    """
    z_up, up = up_from_axis('z'), up_from_cameras(world_from_cam)
    return z_up if up @ z_up > _LEVEL or not len(points) else refine_up(points[:, :3], up)


def refine_up(points: np.ndarray, up: np.ndarray, max_points: int = 20_000) -> np.ndarray:
    """Snap a direction to the common normal of floors and table tops near it.

    The principal axis of all surface normals within a cone about the direction becomes the next
    direction, while the cone narrows from 30 to 5 degrees.

    Args:
        points: (N, 3) metres.
        up: (3,) unit vector, right to about 25 degrees.
        max_points: an even selection of so many points is enough.

    Returns:
        (3,) unit vector; ``up`` itself where too few surfaces agree.
    """
    few = np.linspace(0, len(points) - 1, min(len(points), max_points)).astype(np.int64)
    normals = normals_of_neighbors(points[few])
    refined = up
    for degrees in (30.0, 20.0, 10.0, 5.0):
        near = normals[np.abs(normals @ refined) > np.cos(np.radians(degrees))]
        if len(near) < 0.02 * len(normals):
            return up
        axis = np.linalg.eigh(near.T @ near)[1][:, -1]
        refined = axis * np.sign(axis @ refined)
    return refined


def rotation_to_z_up(up: np.ndarray) -> np.ndarray:
    """The smallest rotation (3, 3) that takes the unit vector ``up`` to +z (Rodrigues' formula)."""
    x, y, z = (float(c) for c in up / np.linalg.norm(up))
    if z < -1 + 1e-9:
        return np.diag([1.0, -1.0, -1.0])
    cross = np.array([[0, 0, -x], [0, 0, -y], [x, y, 0]])
    return np.eye(3) + cross + cross @ cross / (1 + z)
