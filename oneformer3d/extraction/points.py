"""Features at a scene's points, one file per frame, and how many points each frame sees.

Enters: a decoded frame with its depth, and the frame's map as it is stored. Leaves:
``<scene>/frame_<idx>.npz`` and ``vis_<idx>.png`` to look at, and rates of valid projections.

``frame_<idx>.npz``, N points in the order of the scene's own file:

    pts_feat      (N, 128) float32   through the trained head, or a seeded projection
    pts_feat_raw  (N, C)             the tokens sampled at the point, 0 where it is not visible
    uv_idx        (N, 2) float32     pixel (x, y); finite everywhere, meant only where valid
    valid         (N,) bool          the frame sees the point
    conf_2d       (N,) float32       1 − |z − d| / tolerance against the measured depth d, else 0
    projection    text               what pts_feat is
"""

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import torch
from torch import Tensor

from oneformer3d.data.scene_files import read_points
from oneformer3d.data.scenes import Frame, Scene
from oneformer3d.files.atomic import atomic_path
from oneformer3d.files.images import write_png
from oneformer3d.fusion.point_head import PointHead, load_point_head, orthogonal_point_head
from oneformer3d.lifting.camera import Camera
from oneformer3d.lifting.pairs import PixelPairs, project_pairs
from oneformer3d.lifting.pixel_shuffle import frozen_tokens
from oneformer3d.lifting.shapes import size_of
from oneformer3d.lifting.uv import sample_img_feat
from oneformer3d.lifting.visibility import Visibility, nearest_pixel
from oneformer3d.store import StoreStamp
from oneformer3d.visualization.features import feature_colors, resize_colors

from .decoding import DecodedFrame
from .settings import ExtractionSettings

POINT_CHANNELS = 128
_CACHED_SCENES = 4
_LEAST_HEIGHT = 224  # of a picture


class FrameView(NamedTuple):
    """How one frame sees the N points of its scene.

    Attributes:
        uv: (N, 2) float32 pixels (x, y), finite.
        valid: (N,) bool.
        confidence: (N,) float32 in [0, 1], 0 where not valid.
    """

    uv: Tensor
    valid: Tensor
    confidence: Tensor


class ScenePoints:
    """Points (N, 3) float32 of scenes, the last few kept."""

    def __init__(self, max_points: int | None = None) -> None:
        self._max_points = max_points
        self._scenes: OrderedDict[str, Tensor] = OrderedDict()

    def get(self, scene: Scene) -> Tensor:
        """The scene's points, or an even selection of at most ``max_points``.

        Raises:
            FileNotFoundError, ValueError: no such file, or not rows of six float32.
        """
        if scene.name not in self._scenes:
            self._scenes[scene.name] = read_xyz(scene.points_path, self._max_points)
            if len(self._scenes) > _CACHED_SCENES:
                self._scenes.popitem(last=False)
        self._scenes.move_to_end(scene.name)
        return self._scenes[scene.name]


class ValidRates:
    """Shares of the points that frames see, per scene.

    Args:
        num_points: an even selection of so many points per scene is looked at; 0 for none.
    """

    def __init__(self, num_points: int) -> None:
        self.num_points = num_points
        self._points = ScenePoints(num_points)
        self._counts: dict[str, list[int]] = {}
        self._covered: dict[str, Tensor] = {}

    def add(self, decoded: DecodedFrame) -> None:
        """Count one frame; one whose depth cannot be read is left out."""
        if self.num_points == 0 or decoded.depth_fault is not None:
            return
        scene = decoded.frame.scene
        points = self._points.get(scene)
        pairs = frame_pairs(points, decoded)
        in_view = len(frame_pairs(points, decoded, with_depth=False))

        counts = self._counts.setdefault(scene.name, [0, 0, 0])
        for index, count in enumerate((1, in_view, len(pairs))):
            counts[index] += count

        covered = self._covered.setdefault(scene.name, torch.zeros(len(points), dtype=torch.bool))
        covered[pairs.point] = True

    def table(self) -> dict[str, dict[str, float]]:
        """Scene → frames, and shares of its points: in_view and valid per frame, covered by any."""
        table = {}
        for name, (frames, in_view, valid) in self._counts.items():
            num_points = max(1, len(self._covered[name]))
            table[name] = {
                'frames': frames,
                'in_view': in_view / (frames * num_points),
                'valid': valid / (frames * num_points),
                'covered': int(self._covered[name].sum()) / num_points,
            }
        return table


class PointOutputs:
    """Writes ``frame_<idx>.npz`` and ``vis_<idx>.png`` into the output folder.

    Args:
        settings: of the extraction.
        stamp: of the maps.
    """

    def __init__(self, settings: ExtractionSettings, stamp: StoreStamp) -> None:
        self._folder = Path(settings.output_dir)
        self._vis_method = settings.vis_method if settings.vis else None
        self.num_bytes = 0  # of the files written
        self._half = settings.dtype != 'fp32'
        self._points = ScenePoints()
        self._shuffle_factor = stamp.shuffle_factor
        self._head: PointHead = (
            orthogonal_point_head(stamp.token_channels, POINT_CHANNELS, settings.seed)
            if settings.head is None
            else load_point_head(settings.head, stamp.token_channels)
        )

    def is_done(self, frame: Frame, with_picture: bool) -> bool:
        """Whether the frame's files are there (each appears whole or not at all)."""
        done = self._path(frame, 'frame', 'npz').is_file()
        return done and (not with_picture or self._path(frame, 'vis', 'png').is_file())

    def write(self, decoded: DecodedFrame, feat: Tensor) -> None:
        """Write the files of one frame.

        Args:
            decoded: with image, and depth where there is one.
            feat: map as it is stored, on the CPU.
        """
        frame = decoded.frame
        feat = frozen_tokens(feat, self._shuffle_factor)  # (C, h, w)
        points = self._points.get(frame.scene)
        view = frame_view(points, decoded)
        size = frame.scene.image_size

        # points that the frame does not see have zeros
        raw = torch.zeros(len(points), feat.shape[0])
        raw[view.valid] = sample_img_feat(feat, view.uv[view.valid], size)
        projected = torch.zeros(len(points), POINT_CHANNELS)
        projected[view.valid] = self._head(feat, view.uv[view.valid], size)

        arrays = {
            'pts_feat': projected.numpy(),
            'pts_feat_raw': (raw.half() if self._half else raw).numpy(),
            'uv_idx': view.uv.numpy(),
            'valid': view.valid.numpy(),
            'conf_2d': view.confidence.numpy(),
            'projection': np.array(self._head.description),
        }

        written = [self._path(frame, 'frame', 'npz')]
        write_npz(written[0], arrays)
        if self._vis_method is not None and decoded.image is not None:
            picture = feature_picture(decoded.image, feat, self._vis_method)
            written.append(self._path(frame, 'vis', 'png'))
            write_png(written[1], picture)
        self.num_bytes += sum(path.stat().st_size for path in written)

    def _path(self, frame: Frame, kind: str, suffix: str) -> Path:
        return self._folder / frame.scene.name / f'{kind}_{frame.name}.{suffix}'


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """An npz file with the fastest compression, which packs the zeros of invisible points."""
    with atomic_path(path) as temporary, ZipFile(temporary, 'w', ZIP_DEFLATED, True, 1) as archive:
        for name, array in arrays.items():
            with archive.open(f'{name}.npy', 'w', force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def feature_picture(image: np.ndarray, feat: Tensor, method: str) -> np.ndarray:
    """Image (H, W, 3) uint8 or 0–1 beside the pseudo-colours of its tokens (C, h, w).

    Returns:
        (s·H, 2·s·W, 3) uint8, s enlarging small images.
    """
    if image.dtype != np.uint8:
        image = np.rint(255 * image).astype(np.uint8)
    rows = feat.float().flatten(1).t().numpy()
    colors = feature_colors(rows, method).reshape(*feat.shape[1:], 3)
    scale = -(-_LEAST_HEIGHT // image.shape[0])
    size = (scale * image.shape[0], scale * image.shape[1])
    return np.concatenate([resize_colors(image, size), resize_colors(colors, size)], axis=1)


def frame_view(points: Tensor, decoded: DecodedFrame) -> FrameView:
    """Pixel, visibility and confidence of every point (N, 3) in one frame."""
    camera = decoded.frame.camera
    uv, _ = camera.project(points)
    valid = torch.zeros(len(points), dtype=torch.bool)
    confidence = torch.zeros(len(points))

    pairs = frame_pairs(points, decoded)
    valid[pairs.point] = True
    confidence[pairs.point] = _agreement(points, pairs, decoded)
    return FrameView(uv, valid, confidence)


def frame_pairs(points: Tensor, decoded: DecodedFrame, with_depth: bool = True) -> PixelPairs:
    """Visible pairs of the points and one frame; without a depth image the frustum decides."""
    depth, depth_camera = None, None
    if with_depth and decoded.depth is not None:
        depth = torch.from_numpy(decoded.depth)[None]
        depth_camera = _depth_camera(decoded.frame, size_of(decoded.depth))
    camera = _as_views(decoded.frame.camera)
    return project_pairs(points, camera, depth, depth_camera=depth_camera)


def read_xyz(path: Path, max_points: int | None = None) -> Tensor:
    """Coordinates (N, 3) float32 of a point file, or an even selection of at most ``max_points``.

    Raises:
        FileNotFoundError, ValueError: as ``read_points``.
    """
    xyz = read_points(path)[:, :3]
    if max_points is not None and len(xyz) > max_points:
        xyz = xyz[np.linspace(0, len(xyz) - 1, max_points).astype(np.int64)]
    return torch.from_numpy(np.ascontiguousarray(xyz))


def _depth_camera(frame: Frame, size: tuple[int, int]) -> Camera | None:
    """Camera of depth images (h, w) where it is not simply the colour camera resized."""
    resized, camera = frame.camera.resize(size), frame.depth_camera(size)
    if camera is None or torch.allclose(resized.intrinsics, camera.intrinsics, atol=1e-2):
        return None
    return _as_views(camera)


def _agreement(points: Tensor, pairs: PixelPairs, decoded: DecodedFrame) -> Tensor:
    """(P,) 1 − |z − d| / tolerance, 1 where the frame has no depth image."""
    if decoded.depth is None or len(pairs) == 0:
        return torch.ones(len(pairs))
    camera = _depth_camera(decoded.frame, size_of(decoded.depth))
    uv, z, size = pairs.uv, pairs.depth_z, decoded.frame.scene.image_size
    if camera is not None:
        (uv,), (z,) = camera.project(points[pairs.point])
        size = camera.image_size

    # 1 − |z − d| / tolerance(d)
    measured = nearest_pixel(torch.from_numpy(decoded.depth), uv[:, 0], uv[:, 1], size)
    return (1 - (z - measured).abs() / Visibility().tolerance(measured)).clamp(0, 1)


def _as_views(camera: Camera) -> Camera:
    return Camera(camera.intrinsics[None], camera.world_from_cam[None], camera.image_size)
