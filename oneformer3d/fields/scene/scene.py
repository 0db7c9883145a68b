"""The posed images of one scene as a field is fitted to them; read when they are asked for.

Enters: a folder of posed RGB-D frames (``data/posed_rgbd.py``; a synthetic room is one), or arrays.
Leaves: a ``FieldScene``: cameras, class names, the scan's own points where there are some, and a
function that reads one view's ``ViewContent``.

Letters: V views, H × W pixels of a colour image, h × w cells of a feature map, D its width,
N points, C classes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from oneformer3d.data.class_tables import ClassTable, get_class_table
from oneformer3d.data.posed_rgbd import PosedSequence, RawFrame, load_posed_rgbd
from oneformer3d.data.scenes import read_scenes
from oneformer3d.files.images import image_size, read_depth, read_image
from oneformer3d.files.names import validate_scene_name
from oneformer3d.lifting import Camera, is_valid_pose, resize_intrinsics
from oneformer3d.lifting.visibility import nearest_pixel
from oneformer3d.store import FeatureStore, StoreStamp

from .label_maps import (
    IGNORE,
    LabelMaps,
    ScanPoints,
    image_label_maps,
    label_maps_from,
    read_scan_points,
)


@dataclass(frozen=True, eq=False)
class ViewContent:
    """What one view supervises; everything at the pixels of the colour image but the features.

    Attributes:
        rgb: (H, W, 3) uint8.
        depth: (H, W) float32 z-depth in metres, 0 for missing, or None.
        semantics: (H, W) uint8 class, ``IGNORE`` for none, or None.
        instances: (H, W) int32 instance, -1 for none, or None.
        features: (h, w, D) float16 or float32 over the whole image, or None.
        language: S of (h, w, D), embeddings of crops at S scales (``language.py``), or None.
    """

    rgb: Tensor
    depth: Tensor | None = None
    semantics: Tensor | None = None
    instances: Tensor | None = None
    features: Tensor | None = None
    language: tuple[Tensor, ...] | None = None


@dataclass(frozen=True, eq=False)
class FieldScene:
    """Posed images of one scene.

    Attributes:
        name: of the scene, the first part of its keys in a feature store.
        frames: V names.
        camera: V views, colour's intrinsics.
        read: view index → its content.
        has_depth: whether views have depth.
        class_names: C names, none without labels.
        palette: (C, 3) uint8.
        things: classes that have instances.
        stamp: of the features, None without.
        points: the scan's cloud, or None.
        language_stamp: of the crop embeddings, None without.
        language_scales: S crop sides as a share of the height.
    """

    name: str
    frames: tuple[str, ...]
    camera: Camera
    read: Callable[[int], ViewContent]
    has_depth: bool
    class_names: tuple[str, ...] = ()
    palette: np.ndarray | None = None
    things: tuple[int, ...] = ()
    stamp: StoreStamp | None = None
    points: ScanPoints | None = None
    language_stamp: StoreStamp | None = None
    language_scales: tuple[float, ...] = ()

    def __len__(self) -> int:
        return len(self.frames)

    def view_camera(self, view: int, content: ViewContent) -> Camera:
        """The camera of one view, of the size of its own image."""
        return replace(self.camera[view], image_size=tuple(content.rgb.shape[:2]))

    def split(self, every: int) -> tuple[list[int], list[int]]:
        """Views to train on and views held out: every so many-th, from the middle of the first.

        Args:
            every: 0 holds out none; of one or two views none is held out either.
        """
        views = list(range(len(self)))
        if every < 0 or every == 1:
            raise ValueError(f'holdout_every: expected 0, or 2 and more, got {every}')
        held_out = views[every // 2 :: every] if every and len(views) > 2 else []
        return [view for view in views if view not in held_out], held_out


def load_field_scene(
    folder: str | Path,
    *,
    store: str | Path | None = None,
    expected_stamp: StoreStamp | Mapping | None = None,
    labels: str | Path = 'auto',
    class_table: str | None = None,
    frame_step: int = 1,
    max_side: int | None = None,
) -> FieldScene:
    """A scene from its folder; only headers, poses and points are read.

    Args:
        folder: posed RGB-D frames, or ``<data root>/<scene>`` for ``posed_images/<scene>`` there.
            In a data root the scan's points and labels are found too.
        store: feature store with the frames' features.
        expected_stamp: refuse features of another encoder.
        labels: 'auto' takes the label images beside the colour images if there are any, 'none'
            nothing; else a folder of label images, or an ``.npz`` or ``.ply`` of labelled points;
            see ``label_maps.label_maps_from``.
        class_table: of the labels; None takes the data root's.
        frame_step: take every so many-th frame.
        max_side: read images resized so that no side is longer, in pixels.

    Raises:
        FileNotFoundError: no such folder, store, labels or class table.
        ValueError: no usable frame, images of mixed sizes, labels that do not fit.
        StampMismatchError: features of another encoder.
    """
    folder = _find_folder(Path(folder))
    sequence = load_posed_rgbd(folder, frame_step)
    root = folder.parent.parent if folder.parent.name == 'posed_images' else None
    table = _class_table(root, folder.name, class_table)
    maps = _label_maps(labels, sequence, table)
    features = None if store is None else _open_features(store, expected_stamp, sequence)
    size = _common_size(sequence)
    smaller = _fit_size(size, max_side)
    poses = np.stack([frame.world_from_cam for frame in sequence.frames])
    full = torch.from_numpy(sequence.color_intrinsics)
    intrinsics = resize_intrinsics(full, size, smaller).float()
    camera = Camera(intrinsics.expand(len(poses), 3, 3), torch.from_numpy(poses).float(), smaller)
    depth_intrinsics = torch.from_numpy(sequence.depth_intrinsics).float()

    def read(view: int) -> ViewContent:
        frame = sequence.frames[view]
        rgb = torch.from_numpy(read_image(frame.image_path, smaller, size).copy())
        depth = torch.from_numpy(read_depth(frame.depth_path))
        depth = depth_at_color(depth, depth_intrinsics, intrinsics, smaller)
        semantics, instances = None, None
        if maps is not None:
            semantics, instances = maps.read(frame.name, camera[view], depth)
        feat = None
        if features is not None:
            feat = features.get(folder.name, frame.name)['feat']
            feat = torch.from_numpy(feat).movedim(0, -1).contiguous()
        return ViewContent(rgb, depth, semantics, instances, feat)

    return FieldScene(
        name=folder.name,
        frames=tuple(frame.name for frame in sequence.frames),
        camera=camera,
        read=read,
        has_depth=True,
        class_names=() if maps is None else maps.class_names,
        palette=None if maps is None else maps.palette,
        things=() if maps is None else maps.things,
        stamp=None if features is None else features.stamp,
        points=None if root is None else read_scan_points(root, folder.name, table),
    )


def scene_from_arrays(
    images: Sequence[Tensor],
    intrinsics: Sequence[Tensor],
    world_from_cam: Sequence[Tensor],
    *,
    depth: Sequence[Tensor] | None = None,
    semantics: Sequence[Tensor] | None = None,
    instances: Sequence[Tensor] | None = None,
    features: Sequence[Tensor] | None = None,
    class_names: Sequence[str] = (),
    things: Sequence[int] = (),
    name: str = 'scene',
) -> FieldScene:
    """A scene from what is in memory; images may differ in size.

    Args:
        images: V of (H, W, 3), uint8, or floats 0–1.
        intrinsics: V of (3, 3), each of its own image.
        world_from_cam: V of (4, 4), OpenCV axes, metres.
        depth: V of (H, W) z-depth in metres.
        semantics: V of (H, W) classes, ``IGNORE`` for none.
        instances: V of (H, W) ids, -1 for none.
        features: V of (h, w, D).
        class_names: C names of the classes; without them they are numbered.
        things: classes with instances.
        name: of the scene.

    Raises:
        ValueError: lists of different lengths, a pose that is not a rigid motion, sizes or labels
            that do not fit; names the view.
    """
    if not images:
        raise ValueError('images: expected at least one')
    columns = {'depth': depth, 'semantics': semantics, 'instances': instances, 'features': features}
    named = {'intrinsics': intrinsics, 'world_from_cam': world_from_cam, **columns}
    for key, values in named.items():
        if values is not None and len(values) != len(images):
            raise ValueError(f'{key}: expected one per image, {len(images)}, got {len(values)}')
    for view, pose in enumerate(world_from_cam):
        if not is_valid_pose(torch.as_tensor(pose)):
            raise ValueError(f'view {view}: its pose is not a finite rigid motion')
    views = [
        _view_content(
            view, image, {key: None if v is None else v[view] for key, v in columns.items()}
        )
        for view, image in enumerate(images)
    ]
    if semantics is not None and not class_names:
        known = [view.semantics[view.semantics != IGNORE] for view in views]
        count = 1 + max((int(ids.max()) for ids in known if len(ids)), default=0)
        class_names = [str(label) for label in range(count)]
    for view, content in enumerate(views):
        if content.semantics is not None:
            check_labels(content.semantics, len(class_names), f'view {view}')
    camera = Camera(
        torch.stack([torch.as_tensor(matrix).float() for matrix in intrinsics]),
        torch.stack([torch.as_tensor(matrix).float() for matrix in world_from_cam]),
        tuple(views[0].rgb.shape[:2]),
    )
    return FieldScene(
        name=validate_scene_name(name),
        frames=tuple(f'{view:05d}' for view in range(len(views))),
        camera=camera,
        read=views.__getitem__,
        has_depth=depth is not None,
        class_names=tuple(class_names),
        things=tuple(things),
    )


def depth_at_color(
    depth: Tensor, depth_intrinsics: Tensor, color_intrinsics: Tensor, size: tuple[int, int]
) -> Tensor:
    """Depth (h, w) of a camera beside the colour camera → (H, W) at the colour pixels.

    Both look from the same place along the same axis, so a colour pixel's ray meets one depth
    pixel: the nearest one is taken; outside the depth image depth is missing.
    """
    height, width = size
    inverse = torch.linalg.inv(color_intrinsics)
    to_depth = depth_intrinsics @ inverse
    u = torch.arange(width) * to_depth[0, 0] + to_depth[0, 2]
    v = torch.arange(height) * to_depth[1, 1] + to_depth[1, 2]
    v, u = (grid.reshape(-1) for grid in torch.meshgrid(v, u, indexing='ij'))
    rows, columns = depth.shape
    inside = (u >= -0.5) & (u < columns - 0.5) & (v >= -0.5) & (v < rows - 0.5)
    found = nearest_pixel(depth[None], u[None], v[None], (rows, columns))[0]
    return torch.where(inside, found, 0.0).reshape(height, width)


def check_labels(semantics: Tensor, num_classes: int, source: str) -> None:
    """ValueError for a class beyond the C there are; ``IGNORE`` is none."""
    if num_classes > IGNORE:
        raise ValueError(f'{source}: {num_classes} classes, at most {IGNORE} are possible')
    wrong = semantics[(semantics >= num_classes) & (semantics != IGNORE)]
    if len(wrong):
        raise ValueError(
            f'{source}: class {int(wrong.max())} is out of range, expected 0…{num_classes - 1} or '
            f'{IGNORE} for none'
        )


def _view_content(view: int, image: Tensor, maps: Mapping[str, Tensor | None]) -> ViewContent:
    image = torch.as_tensor(image)
    if image.ndim != 3 or image.shape[-1] != 3:
        raise ValueError(f'view {view}: expected an image (H, W, 3), got {tuple(image.shape)}')
    if image.is_floating_point():
        if not (image.min() >= 0 and image.max() <= 1):  # NaN fails too
            raise ValueError(f'view {view}: floating point images hold 0–1')
        image = (image * 255).round().to(torch.uint8)
    for key in ('depth', 'semantics', 'instances'):
        if maps[key] is not None and maps[key].shape != image.shape[:2]:
            raise ValueError(
                f'view {view}: {key} {tuple(maps[key].shape)} of an image {tuple(image.shape[:2])}'
            )
    depth, semantics, instances = (maps[key] for key in ('depth', 'semantics', 'instances'))
    if depth is not None:
        depth = torch.where(torch.isfinite(depth) & (depth > 0), depth, 0.0).float()
    if semantics is not None:
        if len(semantics) and not 0 <= int(semantics.min()) <= int(semantics.max()) <= IGNORE:
            raise ValueError(f'view {view}: classes must be within 0…{IGNORE}')
        semantics = semantics.to(torch.uint8)
    if instances is not None:
        instances = instances.to(torch.int32)
    return ViewContent(image, depth, semantics, instances, maps['features'])


def _find_folder(folder: Path) -> Path:
    inside = folder.parent / 'posed_images' / folder.name
    if not folder.is_dir() and inside.is_dir():
        return inside
    return folder


def _class_table(root: Path | None, scene: str, name: str | None) -> ClassTable | None:
    if name is not None:
        return get_class_table(name)
    scenes = {} if root is None else read_scenes(root)
    if scene not in scenes or scenes[scene].class_table is None:
        return None
    return get_class_table(scenes[scene].class_table)


def _label_maps(
    labels: str | Path, sequence: PosedSequence, table: ClassTable | None
) -> LabelMaps | None:
    if str(labels) == 'none':
        return None
    if str(labels) == 'auto':
        return image_label_maps(sequence, table)
    return label_maps_from(Path(labels), sequence, table)


def _open_features(
    path: str | Path, expected: StoreStamp | Mapping | None, sequence: PosedSequence
) -> FeatureStore:
    store = FeatureStore(path, expected)
    scene = sequence.folder.name
    missing = [frame.name for frame in sequence.frames if not store.has(scene, frame.name)]
    if missing:
        raise ValueError(
            f'{path}: no features of {len(missing)} of {len(sequence.frames)} frames of {scene}, '
            f'first of {missing[0]}'
        )
    return store


def _common_size(sequence: PosedSequence) -> tuple[int, int]:
    """(H, W) of all colour images, from their headers."""
    size = None
    for frame in sequence.frames:
        found = _header_size(frame)
        size = size or found
        if found != size:
            raise ValueError(
                f'{frame.image_path}: {found[0]}×{found[1]} pixels, the frames before have '
                f'{size[0]}×{size[1]}; one intrinsics file is of one size'
            )
    return size


def _header_size(frame: RawFrame) -> tuple[int, int]:
    try:
        return image_size(frame.image_path)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f'{frame.image_path}: not a readable image ({error})') from error


def _fit_size(size: tuple[int, int], max_side: int | None) -> tuple[int, int]:
    if max_side is None or max(size) <= max_side:
        return size
    if max_side < 8:
        raise ValueError(f'max_side: expected 8 pixels or more, got {max_side}')
    scale = max_side / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
