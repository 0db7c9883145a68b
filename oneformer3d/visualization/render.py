"""Point clouds to pictures without a screen: z-buffered splats with eye-dome lighting.

Enters: points (N, 3) in metres, z up, colors (N, 3) uint8. Leaves: images (H, W, 3) uint8 on white.

Drawing is split in two: ``PointRaster`` finds once which point every pixel shows, then any
number of colourings of the same points are a lookup. N points,
H×W the image.
"""

import cv2
import numpy as np
from scipy.spatial import KDTree

from oneformer3d.lifting.camera import Camera
from oneformer3d.lifting.shapes import expect_shape

from .views import behind_near_walls, below_ceiling, dollhouse_camera, in_bulk, top_camera

BACKGROUND = 255
MAX_RADIUS = 24  # pixels of the supersampled image
MAX_POINTS = 600_000  # of a larger cloud an even selection is drawn
_AZIMUTHS = (45.0, 135.0, 225.0, 315.0)
_CHUNK = 16384
_SAME_PLACE = 1e-4  # metres: of points nearer than this one is drawn
_MUCH = 60_000_000  # pixels of discs; beyond it one point per pixel is drawn
_EMPTY = np.iinfo(np.int64).max


def render_points(
    points: np.ndarray,
    colors: np.ndarray,
    size: tuple[int, int] = (480, 640),
    camera: Camera | str = 'dollhouse',
) -> np.ndarray:
    """One picture of a coloured point cloud.

    Args:
        points: (N, 3) metres, z up.
        colors: (N, 3) uint8.
        size: (H, W); ignored when ``camera`` is a camera.
        camera: 'dollhouse' (oblique from above, ceiling and near walls cut), 'top' (straight
            down, ceiling cut) or a camera that sees every point.

    Returns:
        (H, W, 3) uint8, white where there is no point.

    Raises:
        ValueError: Shapes differ, no points, or no such view.
    """
    return PointRaster(points, size, camera).paint(colors)


class PointRaster:
    """Which point each pixel shows; paint it with any colours.

    Args:
        points: (N, 3) metres, z up.
        size: (H, W).
        camera: see ``render_points``. A view by name frames the bulk of the scan.
        supersampling: rows and columns drawn for each one shown.

    Attributes:
        num_stray: points far from the bulk that are not drawn.
    """

    def __init__(
        self,
        points: np.ndarray,
        size: tuple[int, int] = (480, 640),
        camera: Camera | str = 'dollhouse',
        supersampling: int = 2,
    ) -> None:
        points = np.asarray(points)
        self.num_points, _ = expect_shape('points', points, 'N 3')
        if not self.num_points:
            raise ValueError('points: expected at least one, got none')
        self.supersampling = supersampling

        is_bulk = np.full(len(points), True) if isinstance(camera, Camera) else in_bulk(points)
        self.num_stray = int(len(points) - is_bulk.sum())
        drawn = np.flatnonzero(is_bulk)
        drawn = drawn[np.linspace(0, len(drawn) - 1, min(len(drawn), MAX_POINTS)).astype(np.int64)]
        drawn = drawn[_first_of_place(points[drawn])]
        spacing = point_spacing(points[drawn])
        self.camera, visible = _choose_view(points[drawn], spacing, size, camera)
        drawn, spacing = drawn[visible], spacing[visible]

        height, width = self.camera.image_size
        fine_camera = self.camera.resize((height * supersampling, width * supersampling))
        index, depth = rasterise(points[drawn], 0.75 * spacing, fine_camera)
        gap = _spacing_pixels(spacing, depth, fine_camera)
        index, depth = fill_gaps(index, depth, int(np.clip(gap, 1, MAX_RADIUS)))

        self.index = np.where(index >= 0, drawn[index], -1)  # (H·s, W·s)
        self.shade = eye_dome_shade(
            depth, 1.25 * float(np.median(spacing)), pixel_radius=supersampling
        )

    def paint(self, colors: np.ndarray) -> np.ndarray:
        """Colours (N, 3) uint8 of the same points → image (H, W, 3) uint8."""
        colors = np.asarray(colors)
        expect_shape('colors', colors, 'N 3', N=self.num_points)

        image = colors[self.index].astype(np.float32) * self.shade[..., None]
        image[self.index < 0] = BACKGROUND

        # s×s drawn pixels are one of the picture
        factor = self.supersampling
        height, width = self.camera.image_size
        image = image.reshape(height, factor, width, factor, 3).mean(axis=(1, 3))
        return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def rasterise(
    points: np.ndarray, radii: np.ndarray, camera: Camera
) -> tuple[np.ndarray, np.ndarray]:
    """Draw each point as a disc facing the camera; the nearest one wins.

    Args:
        points: (N, 3) metres.
        radii: (N,) disc radii in metres.
        camera: the view; points nearer than 1 cm or behind it are left out.

    Returns:
        index (H, W) int64 of the visible point, -1 where there is none; depth (H, W) float32 of
        that point along z in metres, inf where there is none.
    """
    height, width = camera.image_size
    intrinsics = camera.intrinsics.numpy()
    in_camera = points_in_camera(points, camera)  # (N, 3)
    in_front = np.flatnonzero(in_camera[:, 2] > 0.01)
    z = in_camera[in_front, 2]
    # u = fx X / Z + cx,  v = fy Y / Z + cy
    uv = in_camera[in_front, :2] / z[:, None] * np.diag(intrinsics)[:2]
    uv = np.rint(uv + intrinsics[:2, 2])

    # The canvas has a border, so that no disc of a centre kept here can leave it.
    keep = ((uv >= -MAX_RADIUS) & (uv < np.array([width, height]) + MAX_RADIUS)).all(axis=1)
    drawn, z, uv = in_front[keep], z[keep], uv[keep].astype(np.int64)
    pixel_radius = np.clip(radii[drawn] * intrinsics[0, 0] / z, 0.5, MAX_RADIUS)
    # a crowd of points with large discs: what lies behind another of the same pixel is left out
    if np.pi * np.square(pixel_radius).sum() > _MUCH:
        order = np.lexsort((z, uv[:, 0], uv[:, 1]))
        is_first = np.append(True, (np.diff(uv[order], axis=0) != 0).any(axis=1))
        kept = np.sort(order[is_first])
        drawn, z, uv, pixel_radius = drawn[kept], z[kept], uv[kept], pixel_radius[kept]

    border = 2 * MAX_RADIUS
    pitch = width + 2 * border
    canvas = np.full((height + 2 * border, pitch), _EMPTY, dtype=np.int64)
    center = (uv[:, 1] + border) * pitch + uv[:, 0] + border
    metres_per_pixel = (z / intrinsics[0, 0]).astype(np.float32)

    order = np.argsort(pixel_radius, kind='stable')  # so that a chunk needs one size of disc
    for start in range(0, len(order), _CHUNK):
        chunk = order[start : start + _CHUNK]
        steps, distance = _disc(int(pixel_radius[chunk[-1]]), pitch)
        covered = distance <= pixel_radius[chunk, None]
        # Cones, not discs: where splats of one surface overlap, the nearer centre wins.
        depth = z[chunk, None] + distance * metres_per_pixel[chunk, None]
        key = _sort_key(depth[covered], np.broadcast_to(drawn[chunk, None], depth.shape)[covered])
        np.minimum.at(canvas.reshape(-1), (center[chunk, None] + steps)[covered], key)

    nearest = canvas[border : border + height, border : border + width]
    index = np.where(nearest == _EMPTY, -1, nearest & 0xFFFFFFFF)
    depth = np.where(index >= 0, in_camera[index, 2], np.float32(np.inf))
    return index, depth


def fill_gaps(index: np.ndarray, depth: np.ndarray, radius: int) -> tuple[np.ndarray, np.ndarray]:
    """Give empty pixels between points, less than 2 ``radius`` wide, to the nearest point's pixel.

    The outline keeps its shape (a morphological closing decides which pixels are between).

    Args:
        index: (H, W) point of each pixel, -1 = none.
        depth: (H, W) its depth, inf = none.
        radius: pixels.

    Returns:
        New index and depth.
    """
    # gaps are what a morphological closing fills
    covered = (index >= 0).astype(np.uint8)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    closed = cv2.morphologyEx(np.pad(covered, radius), cv2.MORPH_CLOSE, kernel)
    gaps = (closed[radius:-radius, radius:-radius] > 0) & (covered == 0)
    if not gaps.any():
        return index, depth

    # each takes the nearest pixel that is covered
    _, labels = cv2.distanceTransformWithLabels(
        1 - covered, cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    labels = np.asarray(labels, np.int32)  # (H, W)
    pixel_of_label = np.zeros(labels.max() + 1, dtype=np.int64)
    pixel_of_label[labels[covered > 0]] = np.flatnonzero(covered)
    nearest = pixel_of_label[labels[gaps]]

    index, depth = index.copy(), depth.copy()
    index[gaps], depth[gaps] = index.flat[nearest], depth.flat[nearest]
    return index, depth


def eye_dome_shade(
    depth: np.ndarray, noise: float = 0.0, pixel_radius: int = 1, strength: float = 1.6
) -> np.ndarray:
    """Darken what lies behind its neighbours (eye-dome lighting, C. Boucheny, PhD thesis 2009).

    With d the depths, ``shade = exp(-strength · mean_k max(0, log d - log d_k - noise/d) / 0.02)``
    over eight neighbours k at one and two radii: a 2 % step in depth all around is a full unit.

    Args:
        depth: (H, W) z-depth in metres, inf where there is nothing.
        noise: steps in depth below this, in metres, come from the splats and stay unseen.
        pixel_radius: distance of the neighbours.
        strength: how dark.

    Returns:
        (H, W) float32 in (0, 1]; 1 where there is nothing.
    """
    far = np.float32(1e6)
    # The median takes out single stray splats and keeps the edges.
    smooth = cv2.medianBlur(np.where(np.isfinite(depth), depth, far).astype(np.float32), 5)
    known = np.isfinite(depth) & (smooth < far)
    height, width = depth.shape
    reach = 2 * pixel_radius
    padded = np.pad(np.log(smooth), reach, constant_values=np.log(far))
    limit = np.log(smooth) - noise / smooth
    obscurance = np.zeros(depth.shape, dtype=np.float32)
    for step in (pixel_radius, reach):
        for dv, du in _DIRECTIONS:
            v, u = reach + step * dv, reach + step * du
            # A jump counts like 6 %: silhouettes stay lines, not black shadows.
            obscurance += np.clip(limit - padded[v : v + height, u : u + width], 0, 0.06)
    shade = np.exp(-strength / 0.02 / (2 * len(_DIRECTIONS)) * obscurance)
    return np.where(known, np.maximum(shade, 0.25), 1).astype(np.float32)


def _first_of_place(points: np.ndarray) -> np.ndarray:
    """Indices, ascending, of the first point of every place; clouds may repeat one many times."""
    cells = np.floor((points - points.min(axis=0)) / _SAME_PLACE).astype(np.int64)  # (N, 3)
    # places are told apart by a sum of odd multiples that wraps around
    key = cells @ np.array([1, 0x9E3779B97F4A7C1, 0x2545F4914F6CDD1D], dtype=np.int64)
    return np.sort(np.unique(key, return_index=True)[1])


def point_spacing(points: np.ndarray) -> np.ndarray:
    """Distance from each point to its third neighbour (N,), held near the scan's median.

    A scan has about four neighbours at its spacing; the third sees past a double point.
    """
    num_neighbours = min(4, len(points))
    if num_neighbours < 2:
        return np.full(len(points), 0.02)
    distances, _ = KDTree(points).query(points, k=num_neighbours)
    spacing = distances[:, -1]
    median = max(float(np.median(spacing)), 1e-3)
    return np.clip(spacing, 0.7 * median, 2.0 * median)


def points_in_camera(points: np.ndarray, camera: Camera) -> np.ndarray:
    """World points (N, 3) → camera coordinates (N, 3) float32."""
    pose = camera.world_from_cam.numpy()
    # The large offset is taken off in double, so that float32 keeps its millimetres.
    return (points - pose[:3, 3]).astype(np.float32) @ pose[:3, :3].astype(np.float32)


def _spacing_pixels(spacing: np.ndarray, depth: np.ndarray, camera: Camera) -> float:
    """The median spacing in pixels of ``camera`` at the median visible depth."""
    visible = depth[np.isfinite(depth)]
    if not len(visible):
        return 0.0
    return float(np.median(spacing) * float(camera.intrinsics[0, 0]) / np.median(visible))


def _choose_view(
    points: np.ndarray, spacing: np.ndarray, size: tuple[int, int], view: Camera | str
) -> tuple[Camera, np.ndarray]:
    """The camera and the mask (N,) of points to draw."""
    if isinstance(view, Camera):
        return view, np.ones(len(points), dtype=bool)
    if view not in ('dollhouse', 'top'):
        raise ValueError(f"no view {view!r}, expected 'dollhouse', 'top' or a camera")
    below = below_ceiling(points)
    if view == 'top':
        return top_camera(points[below], size), below

    # Of the four corners to look from, the one that sees most of the scan.
    few = slice(None, None, max(1, len(points) // 20_000))
    small = (96, 128)
    best, most_visible = _AZIMUTHS[0], -1
    for azimuth in _AZIMUTHS:
        keep = (below & behind_near_walls(points, azimuth))[few]
        camera = dollhouse_camera(points[few][keep], small, azimuth)
        radii = 2 * spacing[few][keep]
        num_visible = len(np.unique(rasterise(points[few][keep], radii, camera)[0]))
        if num_visible > most_visible:
            best, most_visible = azimuth, num_visible

    keep = below & behind_near_walls(points, best)
    return dollhouse_camera(points[keep], size, best), keep


def _sort_key(depth: np.ndarray, index: np.ndarray) -> np.ndarray:
    """One int64 that sorts by depth, then index: positive floats sort like their own bits."""
    return depth.astype(np.float32).view(np.int32).astype(np.int64) << 32 | index


def _disc(radius: int, pitch: int) -> tuple[np.ndarray, np.ndarray]:
    """Steps in a flat image of row length ``pitch`` over a disc, and their lengths in pixels."""
    span = np.arange(-radius, radius + 1)
    dv, du = (grid.reshape(-1) for grid in np.meshgrid(span, span, indexing='ij'))
    distance = np.hypot(dv, du)
    inside = distance <= radius + 0.5
    return (dv * pitch + du)[inside], distance[inside].astype(np.float32)


_DIRECTIONS = tuple((dv, du) for dv in (-1, 0, 1) for du in (-1, 0, 1) if dv or du)
