"""Where to look from: cameras that show an indoor scan whole, and what to leave out of sight.

Enters: points (N, 3) in metres, z up. Leaves: a ``Camera`` and masks (N,) of the points
worth drawing.
"""

import numpy as np
import torch

from oneformer3d.lifting.camera import Camera

CELL = 0.10  # metres: the horizontal grid on which ceilings and walls are found
_MAX_HEIGHT = 40.0  # metres: what is taller is no room whose ceiling could be taken off
_BULK = (0.5, 99.5)  # percent of the points along each axis
_MARGIN = 0.25  # of the bulk's longest side, around it


def fit_camera(
    points: np.ndarray,
    direction: np.ndarray,
    up: np.ndarray,
    size: tuple[int, int],
    fov_degrees: float = 40.0,
    margin: float = 0.04,
) -> Camera:
    """The nearest camera looking along ``direction`` that has every point in its image.

    In a frame turned with the camera a point at (x, z) is inside the left and right borders when
    ``|x - c_x| <= t (z + d)``, t the tangent of half the opening; over all points this gives
    the smallest distance d = (max(x - t z) + max(-x - t z)) / 2t and its c_x, likewise for y.

    Args:
        points: (N, 3), N ≥ 1, metres.
        direction: (3,) viewing direction, any length.
        up: (3,) which way is up in the image, not parallel to ``direction``.
        size: (H, W) of the image.
        fov_degrees: full opening angle across the image's width.
        margin: part of the width and height left free at each border.

    Returns:
        The camera.
    """
    height, width = size

    # columns of the rotation: the image's right, down and forward in the world
    forward = direction / np.linalg.norm(direction)
    right = np.cross(forward, up)
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward], axis=1)

    # f = W / 2 tan(fov / 2)
    focal = width / 2 / np.tan(np.radians(fov_degrees) / 2)
    middle = (points.min(axis=0) + points.max(axis=0)) / 2
    x, y, z = ((points - middle) @ rotation).T

    # d = (max(x − t z) + max(−x − t z)) / 2t and c = (max(x − t z) − max(−x − t z)) / 2
    lateral, distances = [], [1e-3]
    for values, extent in ((x, width), (y, height)):
        tangent = (0.5 - margin) * extent / focal
        high, low = (values - tangent * z).max(), (-values - tangent * z).max()
        distances.append((high + low) / (2 * tangent))
        lateral.append((high - low) / 2)
    distance = max(max(distances), 0.1 - float(z.min()))

    world_from_cam = np.eye(4)
    world_from_cam[:3, :3] = rotation
    world_from_cam[:3, 3] = middle + rotation @ np.array([*lateral, -distance])
    intrinsics = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1.0]])
    return Camera(torch.from_numpy(intrinsics), torch.from_numpy(world_from_cam), (height, width))


def in_bulk(points: np.ndarray) -> np.ndarray:
    """Mask (N,) of the points within or near the box of the inner 99 % along each axis.

    A few stray returns, through a window or off a mirror, are no reason to show a scan small.

    Example:
        >>> room = np.random.default_rng(0).uniform(0, 3, (1000, 3))
        >>> in_bulk(np.append(room, [[90.0, 0, 0]], axis=0))[-2:]
        array([ True, False])
    """
    low, high = np.percentile(points, _BULK, axis=0)  # (3,)
    margin = _MARGIN * (high - low).max()
    near = ((points >= low - margin) & (points <= high + margin)).all(axis=1)
    return near if near.any() else np.ones(len(points), dtype=bool)


def dollhouse_camera(
    points: np.ndarray,
    size: tuple[int, int],
    azimuth_degrees: float = 45.0,
    elevation_degrees: float = 50.0,
) -> Camera:
    """Oblique view from above: the camera stands in the direction ``azimuth`` (0 = +x)."""
    azimuth, elevation = np.radians(azimuth_degrees), np.radians(elevation_degrees)
    towards_camera = np.array(
        [
            np.cos(azimuth) * np.cos(elevation),
            np.sin(azimuth) * np.cos(elevation),
            np.sin(elevation),
        ]
    )
    return fit_camera(points, -towards_camera, np.array([0.0, 0.0, 1.0]), size)


def top_camera(points: np.ndarray, size: tuple[int, int]) -> Camera:
    """View straight down; the longer side of the scan lies along the image's longer side."""
    extent = np.ptp(points[:, :2], axis=0)
    wide = (extent[0] >= extent[1]) == (size[1] >= size[0])
    up = np.array([0.0, 1.0, 0.0]) if wide else np.array([1.0, 0.0, 0.0])
    return fit_camera(points, np.array([0.0, 0.0, -1.0]), up, size, fov_degrees=20.0)


def below_ceiling(
    points: np.ndarray, min_height: float = 1.8, min_cover: float = 0.2
) -> np.ndarray:
    """Mask (N,) of the points that a ceiling does not hide from above.

    In the upper third of a scan at least ``min_height`` tall, the lowest 20 cm slab (scanned
    every 10 cm) that covers ``min_cover`` of the ground plan begins the ceiling: it and all
    above goes. Walls and lamps cover less and stay. Without ceiling every point stays.
    """
    low, high = np.percentile(points[:, 2], [0.5, 99.9])
    if not min_height <= high - low <= _MAX_HEIGHT:
        return np.ones(len(points), dtype=bool)

    cells, num_cells = _ground_cells(points)
    for bottom in np.arange(low + 0.67 * (high - low), high, 0.10):
        slab = (points[:, 2] >= bottom) & (points[:, 2] < bottom + 0.20)
        if len(np.unique(cells[slab])) >= min_cover * num_cells:
            return points[:, 2] < bottom - 0.05
    return np.ones(len(points), dtype=bool)


def behind_near_walls(
    points: np.ndarray, azimuth_degrees: float, keep_height: float = 0.35, thickness: float = 0.35
) -> np.ndarray:
    """Mask (N,) of the points that walls on the camera's side do not cover.

    Seen from above the ground plan is cut into 10 cm strips running towards the camera. What
    stands higher than ``keep_height`` × the scan's height in the last ``thickness`` metres of a
    strip, and reaches up a wall's height (70 %) there, is the near wall: it is cut down to
    that height, like the model of a house with its front taken off.
    """
    low, high = np.percentile(points[:, 2], [0.5, 99.5])
    height = high - low
    if height < 1.2:
        return np.ones(len(points), dtype=bool)

    # strips of the ground plan that run towards the camera
    azimuth = np.radians(azimuth_degrees)
    towards = points[:, 0] * np.cos(azimuth) + points[:, 1] * np.sin(azimuth)
    strip = np.floor((points[:, 1] * np.cos(azimuth) - points[:, 0] * np.sin(azimuth)) / CELL)
    strip = (strip - strip.min()).astype(np.int64)

    # the far end of each strip, as seen from inside
    last = np.full(strip.max() + 1, -np.inf)
    np.maximum.at(last, strip, towards)
    # A door or a gap shows the next strip's wall: the border is that of the neighbourhood.
    neighbours = [np.roll(last, shift) for shift in (-2, -1, 0, 1, 2)]
    near = towards > np.median(neighbours, axis=0)[strip] - thickness

    tall = np.zeros(strip.max() + 1, dtype=bool)
    tall[strip[near & (points[:, 2] > low + 0.7 * height)]] = True
    return ~(near & tall[strip] & (points[:, 2] > low + keep_height * height))


def _ground_cells(points: np.ndarray) -> tuple[np.ndarray, int]:
    """Horizontal grid cell of each point (N,) and how many are occupied."""
    cells = np.floor(points[:, :2] / CELL).astype(np.int64)
    cells -= cells.min(axis=0)
    ids = cells[:, 0] * (int(cells[:, 1].max()) + 1) + cells[:, 1]
    return ids, len(np.unique(ids))
