"""Which pixel of which frame shows each point: computed once per scene, read by whoever needs it.

Enters: the frames of a scene with poses and depth. Leaves: ``<scene>.npz`` with the visible
(point, view) pairs, sorted by point and then by view; V frames, N points, P pairs:

    point (P,) int32 · view (P,) int32 · uv (P, 2) float32 pixels (x, y) · depth_z (P,) float32
    frames (V,) names · image_size (2,) H, W · num_points () · stamp: what it was made from

Where frames have no depth image, a z-buffer of the points themselves takes its place.
"""

import json
import zipfile
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from oneformer3d.data.scenes import Frame
from oneformer3d.files.images import read_depth
from oneformer3d.files.left_out import LostPartsError
from oneformer3d.lifting.camera import Camera
from oneformer3d.lifting.depth_render import zbuffer_views
from oneformer3d.lifting.pairs import PixelPairs, project_pairs
from oneformer3d.lifting.shapes import size_of
from oneformer3d.lifting.visibility import Visibility

from .points import read_xyz, write_npz

VERSION = 1
_ZBUFFER_WIDTH = 160  # cells of a few centimetres: fine enough for slopes, few gaps in a 5 cm cloud
UNREADABLE = (OSError, ValueError)


@dataclass(frozen=True)
class UvIndex:
    """Visible pairs of one scene.

    Attributes:
        pairs: of points and of rows of ``frames``.
        frames: V names; frames that cannot be used are not among them.
        image_size: (H, W) that uv belongs to.
        num_points: N.
    """

    pairs: PixelPairs
    frames: tuple[str, ...]
    image_size: tuple[int, int]
    num_points: int

    @property
    def valid_rate(self) -> float:
        """Share of the N·V pairs that are visible."""
        return len(self.pairs) / max(1, self.num_points * len(self.frames))

    @property
    def coverage(self) -> float:
        """Share of the points that some frame sees."""
        return len(torch.unique(self.pairs.point)) / max(1, self.num_points)


def build_scene_index(
    frames: Sequence[Frame],
    visibility: Visibility = Visibility(),
    pool: ThreadPoolExecutor | None = None,
) -> tuple[UvIndex, dict[str, str]]:
    """Project a scene's points into its frames.

    Args:
        frames: of one scene.
        visibility: what counts as visible.
        pool: decodes depth images; None decodes them here.

    Returns:
        The index, and frame name → reason for the frames left out.

    Raises:
        FileNotFoundError, ValueError: the points are missing or damaged.
    """
    scene = frames[0].scene
    points = read_xyz(scene.points_path)
    depths = list((pool.map if pool else map)(_frame_depth, frames))
    faults = {f.name: d for f, d in zip(frames, depths) if isinstance(d, str)}
    used = [(f, d) for f, d in zip(frames, depths) if not isinstance(d, str)]
    if not used:
        empty = project_pairs(points, scene.cameras([]))
        return UvIndex(empty, (), scene.image_size, len(points)), faults

    camera = scene.cameras([frame for frame, _ in used])
    depth, depth_camera = _depth_maps(points, camera, used)
    pairs = project_pairs(points, camera, depth, depth_camera=depth_camera, visibility=visibility)

    names = tuple(f.name for f, _ in used)
    return UvIndex(pairs, names, scene.image_size, len(points)), faults


def scene_stamp(frames: Sequence[Frame], visibility: Visibility) -> dict[str, Any]:
    """What an index depends on: points, cameras, frames, tolerances."""
    scene = frames[0].scene
    cameras = np.stack([frame.world_from_cam for frame in frames])
    own = [K for f in frames for K in (f.own_intrinsics, f.own_depth_intrinsics) if K is not None]
    depth_intrinsics = (
        scene.intrinsics if scene.depth_intrinsics is None else scene.depth_intrinsics
    )

    return {
        'version': VERSION,
        'points': zlib.crc32(scene.points_path.read_bytes()),
        'cameras': zlib.crc32(
            cameras.tobytes() + scene.intrinsics.tobytes() + b''.join(K.tobytes() for K in own)
        ),
        'depth_camera': zlib.crc32(depth_intrinsics.tobytes()),
        'frames': [frame.name for frame in frames],
        'near': visibility.near,
        'abs_tol': visibility.abs_tol,
        'rel_tol': visibility.rel_tol,
        'edge_reject': visibility.edge_reject,
    }


def write_uv_index(path: str | Path, index: UvIndex, stamp: dict[str, Any]) -> None:
    """Write an index, whole or not at all."""
    pairs = index.pairs
    arrays = {
        'point': pairs.point.numpy().astype(np.int32),
        'view': pairs.view.numpy().astype(np.int32),
        'uv': pairs.uv.numpy().astype(np.float32),
        'depth_z': pairs.depth_z.numpy().astype(np.float32),
        'frames': np.array(index.frames, dtype=np.str_),
        'image_size': np.array(index.image_size, dtype=np.int32),
        'num_points': np.array(index.num_points, dtype=np.int64),
        'stamp': np.array(json.dumps(stamp, sort_keys=True)),
    }
    write_npz(Path(path), arrays)


def read_uv_index(path: str | Path) -> UvIndex:
    """Read an index.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not an index; names the file.
    """
    arrays = _read_npz(Path(path))
    try:
        pairs = PixelPairs(
            torch.from_numpy(arrays['point']).long(),
            torch.from_numpy(arrays['view']).long(),
            torch.from_numpy(arrays['uv']),
            torch.from_numpy(arrays['depth_z']),
        )
        height, width = (int(side) for side in arrays['image_size'])
        frames = tuple(str(name) for name in arrays['frames'])
        return UvIndex(pairs, frames, (height, width), int(arrays['num_points']))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f'{path}: not a uv index: {error}') from error


def is_current(path: str | Path, stamp: dict[str, Any]) -> bool:
    """Whether an index is there and was made from the same."""
    if not Path(path).is_file():
        return False
    try:
        found = _read_npz(Path(path)).get('stamp')
    except ValueError:
        return False
    return found is not None and str(found) == json.dumps(stamp, sort_keys=True)


def by_scene(frames: Sequence[Frame]) -> dict[str, list[Frame]]:
    """Frames grouped by scene, in their order."""
    groups: dict[str, list[Frame]] = {}
    for frame in frames:
        groups.setdefault(frame.scene.name, []).append(frame)
    return groups


def build_uv_indices(
    frames: Sequence[Frame],
    out: str | Path,
    visibility: Visibility = Visibility(),
    workers: int = 2,
    strict: bool = False,
    on_scene: Callable[[str, UvIndex | None, dict[str, str]], None] | None = None,
) -> int:
    """Write ``<out>/<scene>.npz`` for every scene that has no current one.

    Args:
        frames: of any number of scenes.
        out: folder.
        visibility: what counts as visible.
        workers: threads that decode depth images.
        strict: raise for a frame that cannot be used instead of leaving it out.
        on_scene: called with the scene, its index (None if it was there) and the faults, also
            those of an index that was there.

    Returns:
        Number of indices written.

    Raises:
        FileNotFoundError, ValueError: points missing or damaged; with ``strict`` any fault
            (``LostPartsError``).
    """
    num_written = 0
    with ThreadPoolExecutor(workers) as pool:
        for scene, of_scene in by_scene(frames).items():
            path = Path(out) / f'{scene}.npz'
            stamp = scene_stamp(of_scene, visibility)

            if is_current(path, stamp):
                index, faults = None, _left_out_before(path, of_scene)
            else:
                index, faults = build_scene_index(of_scene, visibility, pool)
                if faults and strict:
                    name, reason = next(iter(faults.items()))
                    raise LostPartsError(f'{scene}/{name}: {reason}')
                write_uv_index(path, index, stamp)
                num_written += 1

            if on_scene is not None:
                on_scene(scene, index, faults)
    return num_written


def _left_out_before(path: Path, frames: Sequence[Frame]) -> dict[str, str]:
    """Frames that the index which is there does without, by name."""
    used = set(_read_npz(path)['frames'].tolist())
    return {f.name: f.fault or 'left out before' for f in frames if f.name not in used}


def _frame_depth(frame: Frame) -> np.ndarray | str | None:
    """Depth in metres, None where the frame has none, or the reason why it cannot be used."""
    if frame.fault is not None:
        return frame.fault
    if frame.depth_path is None:
        return None
    try:
        return read_depth(frame.depth_path, frame.scene.depth_size)
    except UNREADABLE as error:
        return ' '.join(str(error).split())


def _depth_maps(
    points: torch.Tensor, camera: Camera, used: Sequence[tuple[Frame, np.ndarray | None]]
) -> tuple[torch.Tensor, Camera | None]:
    """Depth maps (V, h, w) and their camera where it is not the colour camera's own."""
    scene = used[0][0].scene
    measured = [depth for _, depth in used if depth is not None]
    if len(measured) < len(used):
        height, width = scene.image_size
        small = (max(1, height * _ZBUFFER_WIDTH // width), _ZBUFFER_WIDTH)
        return zbuffer_views(points, camera.resize(small)), None

    depth = torch.from_numpy(np.stack(measured))
    size = size_of(depth)
    depth_camera = scene.depth_cameras([frame for frame, _ in used], size)
    resized = camera.resize(size).intrinsics
    if depth_camera is None or torch.allclose(resized, depth_camera.intrinsics, atol=1e-2):
        return depth, None
    return depth, depth_camera


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such uv index')
    try:
        with np.load(path, allow_pickle=False) as content:
            return {name: content[name] for name in content.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f'{path}: damaged: {error}') from error
