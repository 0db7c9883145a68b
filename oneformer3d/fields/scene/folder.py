"""A folder of posed RGB-D frames as a scene for a field.

Enters: a folder (``data/posed_rgbd.py``; a synthetic room is one), perhaps a feature store and
labels. Leaves: a ``FieldScene``; only headers, poses and points are read at once.

Letters: V views, H × W pixels of a colour image, h × w of a depth image.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from oneformer3d.data.class_tables import ClassTable, get_class_table
from oneformer3d.data.layouts import PosedFolder, PosedFrame
from oneformer3d.data.layouts.common import CommonCamera, common_camera
from oneformer3d.data.layouts.pixels import read_color, read_depth
from oneformer3d.data.posed_rgbd import load_posed_rgbd, readable_frames
from oneformer3d.data.scenes import read_scenes
from oneformer3d.files.images import read_image
from oneformer3d.files.left_out import LossRules
from oneformer3d.lifting import Camera
from oneformer3d.lifting.pixel_shuffle import frozen_tokens
from oneformer3d.lifting.visibility import nearest_pixel
from oneformer3d.store import FeatureStore

from .label_maps import read_label_maps
from .labelled_points import read_scan_points
from .scene import FieldScene, ViewContent

_RULES = LossRules()


def load_field_scene(
    folder: str | Path,
    *,
    stores: Mapping[str, str | Path] | None = None,
    labels: str | Path = 'auto',
    class_table: str | None = None,
    max_side: int | None = None,
    frame_step: int = 1,
    convention: str | None = None,
    depth_scale: float | None = None,
    intrinsics: str | Path | NDArray | None = None,
    rules: LossRules = _RULES,
    read_all: bool = False,
) -> FieldScene:
    """A scene from its folder.

    Args:
        folder: posed RGB-D frames, or ``<data root>/<scene>`` for ``posed_images/<scene>`` there.
            In a data root the scan's points and labels are found too.
        stores: feature stores with the frames, by the type of their features: 'CLIP', 'DINO' or
            any other.
        labels: 'auto' takes the label images beside the colour images if there are any, 'none'
            nothing; else a folder of label images, or an ``.npz`` or ``.ply`` of labelled points;
            see ``label_maps.read_label_maps``.
        class_table: of the labels; None takes the data root's.
        max_side: read images resized so that no side is longer, in pixels.
        frame_step: take every so many-th frame.
        convention, depth_scale, intrinsics, rules: see ``load_posed_rgbd``.
        read_all: read all images once and leave broken ones out, as the rules have it; else their
            headers alone are looked at.

    Raises:
        FileNotFoundError: no such folder, store, labels or class table.
        ValueError: no usable frame, labels that do not fit.
    """
    folder = _find_folder(Path(folder))
    sequence = load_posed_rgbd(
        folder,
        frame_step,
        convention=convention,
        depth_scale=depth_scale,
        intrinsics=intrinsics,
        rules=rules,
    )
    if read_all:
        readable = tuple(frame for frame, *_ in readable_frames(sequence, rules=rules))
        sequence = replace(sequence, frames=readable)
    root = folder.parent.parent if folder.parent.name == 'posed_images' else None
    table = _class_table(root, folder.name, class_table)
    maps = read_label_maps(labels, sequence, table)
    opened = {kind: _open_features(path, sequence) for kind, path in (stores or {}).items()}

    common = common_camera(sequence.frames)
    camera = _cameras(sequence, common).resize(_fit_size(common.image_size, max_side))
    camera = camera.to(dtype=torch.float32)

    def read(view: int) -> ViewContent:
        frame, view_camera = sequence.frames[view], camera[view]
        rgb = torch.from_numpy(_read_color(frame, camera.image_size))
        depth = _depth_at_color(frame, view_camera)  # (H, W)

        semantics = instances = None
        if maps is not None:
            semantics, instances = maps.read(frame.name, view_camera, depth)
        features = {
            kind: _read_features(store, folder.name, frame.name) for kind, store in opened.items()
        }
        return ViewContent(rgb, depth, semantics, instances, features)

    return FieldScene(
        name=folder.name,
        frames=tuple(frame.name for frame in sequence.frames),
        camera=camera,
        read=read,
        has_depth=all(frame.depth_path is not None for frame in sequence.frames),
        class_names=() if maps is None else maps.class_names,
        palette=None if maps is None else maps.palette,
        things=() if maps is None else maps.things,
        points=None if root is None else read_scan_points(root, folder.name, table),
        stamps={kind: store.stamp for kind, store in opened.items()},
    )


def depth_at_color(depth: Tensor, depth_intrinsics: Tensor, camera: Camera) -> Tensor:
    """Depth (h, w) of a camera beside the colour camera → (H, W) at the colour pixels.

    Both look from the same position along the same axis, so a colour pixel's ray meets one depth
    pixel: the nearest one is taken; outside the depth image depth is missing.

    Args:
        depth: (h, w) metres.
        depth_intrinsics: (3, 3) of the depth image.
        camera: one colour camera.
    """
    height, width = camera.image_size
    # [u_d, v_d, 1] = K_d K_c⁻¹ [u_c, v_c, 1]
    depth_from_color = depth_intrinsics @ torch.linalg.inv(camera.intrinsics)
    u = torch.arange(width) * depth_from_color[0, 0] + depth_from_color[0, 2]
    v = torch.arange(height) * depth_from_color[1, 1] + depth_from_color[1, 2]
    v, u = (grid.reshape(-1) for grid in torch.meshgrid(v, u, indexing='ij'))  # (H·W,)

    rows, columns = depth.shape
    inside = (u >= -0.5) & (u < columns - 0.5) & (v >= -0.5) & (v < rows - 0.5)
    found = nearest_pixel(depth, u, v, (rows, columns))
    return torch.where(inside, found, 0.0).view(height, width)


def _find_folder(folder: Path) -> Path:
    inside = folder.parent / 'posed_images' / folder.name
    if not folder.is_dir() and inside.is_dir():
        return inside
    return folder


def _class_table(root: Path | None, scene: str, name: str | None) -> ClassTable | None:
    if name is not None:
        return get_class_table(name)
    scenes = {} if root is None else read_scenes(root)
    named = scenes[scene].class_table if scene in scenes else None
    return None if named is None else get_class_table(named)


def _open_features(path: str | Path, sequence: PosedFolder) -> FeatureStore:
    store = FeatureStore(path)
    scene = sequence.folder.name
    missing = [frame.name for frame in sequence.frames if not store.has(scene, frame.name)]
    if missing:
        raise ValueError(
            f'{path}: no features of {len(missing)} of {len(sequence.frames)} frames of {scene}, '
            f'first of {missing[0]}'
        )
    return store


def _read_features(store: FeatureStore, scene: str, frame: str) -> Tensor:
    """A frame's map (h, w, D), the channels of each token together."""
    feature_map = torch.from_numpy(store.get(scene, frame)['feat'])
    return frozen_tokens(feature_map, store.stamp.shuffle_factor).movedim(0, -1).contiguous()


def _cameras(sequence: PosedFolder, common: CommonCamera) -> Camera:
    """V colour cameras at the common size, intrinsics float64 so that a resize loses nothing."""
    poses = torch.from_numpy(np.stack([frame.world_from_cam for frame in sequence.frames]))
    intrinsics = np.stack([common.intrinsics_of(frame) for frame in sequence.frames])
    return Camera(torch.from_numpy(intrinsics), poses, common.image_size)


def _read_color(frame: PosedFrame, size: tuple[int, int]) -> np.ndarray:
    """Colour (H, W, 3) uint8 at a size, without lens distortion."""
    if frame.distortion is None:
        return read_image(frame.image_path, size, frame.image_size).copy()
    return cv2.resize(read_color(frame), size[::-1], interpolation=cv2.INTER_AREA)


def _depth_at_color(frame: PosedFrame, camera: Camera) -> Tensor | None:
    """Depth (H, W) at the colour pixels, None without a depth image."""
    depth = read_depth(frame)
    if depth is None or frame.depth_intrinsics is None:
        return None
    intrinsics = torch.from_numpy(frame.depth_intrinsics).float()
    return depth_at_color(torch.from_numpy(depth), intrinsics, camera)


def _fit_size(size: tuple[int, int], max_side: int | None) -> tuple[int, int]:
    """The (H, W) with no side longer than ``max_side``."""
    if max_side is None or max(size) <= max_side:
        return size
    if max_side < 8:
        raise ValueError(f'max_side: expected 8 pixels or more, got {max_side}')
    scale = max_side / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
