"""Pictures of a field: views of all it knows, a turn on the spot, a labelled cloud.

Enters: a ``FittedField`` and cameras. Leaves: PNG, GIF and PLY files. Colours of features are
fitted once per field, with fixed signs, and are the same in every picture.

Letters: H × W pixels, N points, P phrases.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from oneformer3d.files.atomic import atomic_path
from oneformer3d.files.images import write_png
from oneformer3d.files.ply import write_ply
from oneformer3d.lifting import Camera
from oneformer3d.visualization.features import PcaColors, similarity_colors
from oneformer3d.visualization.palette import class_colors, instance_colors

from ..fitting.fitted import FittedField
from .evaluate import render_view
from .query import field_at_points, relevancy

_PCA_POINTS = 5000
_FRAME_MILLISECONDS = 80
_RELEVANCY_RANGE = (0.4, 0.7)
Painter = Callable[[dict[str, Tensor]], np.ndarray]


def draw_views(
    fitted: FittedField,
    cameras: Sequence[Camera],
    names: Sequence[str],
    out: str | Path,
    text: Tensor | None = None,
    negatives: Tensor | None = None,
    phrases: Sequence[str] = (),
) -> list[Path]:
    """Draw ``<name>.<what>.png`` of views.

    Args:
        fitted: the field.
        cameras: single cameras, each of the size of its picture.
        names: of the files.
        out: folder.
        text: (P, D) unit vectors of phrases.
        negatives: (K, D) of phrases that are nothing in particular.
        phrases: P names of the pictures of relevancy.

    Returns:
        The files.
    """
    written = []
    ways = painters(fitted, text, negatives, phrases)
    heads = None if text is None else list(fitted.field.head_nets)
    for camera, name in zip(cameras, names, strict=True):
        shown = render_view(fitted, camera, heads)
        for way, paint in ways.items():
            path = Path(out) / f'{name}.{way}.png'
            write_png(path, paint(shown))
            written.append(path)
    return written


def painters(
    fitted: FittedField,
    text: Tensor | None = None,
    negatives: Tensor | None = None,
    phrases: Sequence[str] = (),
) -> dict[str, Painter]:
    """Name → function from rendered maps to a picture (H, W, 3) uint8, for what the field has."""
    heads = fitted.field.head_nets
    ways: dict[str, Painter] = {'rgb': _paint_rgb, 'depth': _paint_depth}
    if 'semantics' in heads and fitted.class_names:
        ways['semantics'] = lambda shown: _paint_classes(shown, fitted.palette)
    if 'features' in heads:
        colors = feature_colors_of(fitted)
        ways['features'] = lambda shown: _on_map(shown['features'], colors)
    if 'instances' in heads:
        vectors = feature_colors_of(fitted, 'instances')
        ways['instances'] = lambda shown: _on_map(shown['instances'], vectors)
    if text is not None:
        source = 'language' if 'language' in heads else 'features'
        for column, phrase in enumerate(phrases):
            ways[f'text-{slug(phrase)}'] = _relevancy_painter(source, text[column], negatives)
    return ways


def feature_colors_of(fitted: FittedField, head: str = 'features') -> PcaColors:
    """Colours of a head's values, fitted to a seeded sample of the surfaces that views saw."""
    points = surface_points(fitted)
    generator = torch.Generator().manual_seed(fitted.settings.seed)
    chosen = points[torch.randperm(len(points), generator=generator)[:_PCA_POINTS]]
    return PcaColors(field_at_points(fitted.field, chosen, (head,))[head].numpy())


def surface_points(fitted: FittedField) -> Tensor:
    """World points (N, 3) of the small depth maps that the views left behind."""
    seen = fitted.observations
    if seen is None:
        raise ValueError('the field does not know what its views saw')
    points = torch.stack(
        [seen.camera[view].unproject(depth) for view, depth in enumerate(seen.depth)]
    )
    points = points[seen.depth > 0]
    box = fitted.field.scene_box.to('cpu')
    return points[box.contains(box.to_unit(points))]


def turntable_cameras(
    fitted: FittedField, num_frames: int = 36, size: tuple[int, int] = (120, 160)
) -> list[Camera]:
    """Cameras in the middle of the learnt views that turn once around the vertical."""
    poses = fitted.observations.camera.world_from_cam
    up = -poses[:, :3, 1].mean(0)
    up = up / up.norm()
    forward = poses[0, :3, 2] - (poses[0, :3, 2] @ up) * up
    forward = forward / forward.norm().clamp(min=1e-6)
    side = torch.linalg.cross(forward, up)
    tilt = float((poses[:, :3, 2] @ up).mean().clamp(-0.5, 0.5))
    focal = 0.6 * size[1]
    intrinsics = torch.tensor(
        [[focal, 0, (size[1] - 1) / 2], [0, focal, (size[0] - 1) / 2], [0, 0, 1]]
    )
    cameras = []
    for frame in range(num_frames):
        angle = 2 * math.pi * frame / num_frames
        level = math.cos(angle) * forward + math.sin(angle) * side
        axis = level * math.sqrt(1 - tilt**2) + up * tilt
        right = torch.linalg.cross(axis, up)
        right = right / right.norm()
        pose = torch.eye(4)
        pose[:3, :3] = torch.stack((right, torch.linalg.cross(axis, right), axis), dim=1)
        pose[:3, 3] = poses[:, :3, 3].mean(0)
        cameras.append(Camera(intrinsics, pose, size))
    return cameras


def write_turntable(
    path: str | Path,
    fitted: FittedField,
    num_frames: int = 36,
    size: tuple[int, int] = (120, 160),
    way: str = 'rgb',
    on_frame: Callable[[], None] | None = None,
) -> None:
    """Write a GIF that turns on the spot.

    Args:
        path: of the file.
        fitted: the field.
        num_frames: of the turn.
        size: (H, W).
        way: of ``painters``, or 'all' for all side by side.
        on_frame: called after each.
    """
    ways = painters(fitted)
    if way != 'all' and way not in ways:
        raise ValueError(f'no picture {way!r}, expected one of {list(ways)} or all')
    chosen = ways.values() if way == 'all' else [ways[way]]
    frames = []
    for camera in turntable_cameras(fitted, num_frames, size):
        shown = render_view(fitted, camera)
        frames.append(Image.fromarray(np.concatenate([paint(shown) for paint in chosen], axis=1)))
        if on_frame is not None:
            on_frame()
    with atomic_path(path) as temporary:
        frames[0].save(
            temporary,
            format='GIF',
            save_all=True,
            append_images=frames[1:],
            duration=_FRAME_MILLISECONDS,
            loop=0,
        )


def write_labelled_cloud(
    path: str | Path, points: Tensor, result: dict[str, Tensor], palette: np.ndarray | None
) -> None:
    """Write query results as PLY: coloured by class, or by relevancy where there are no classes."""
    columns = {
        name: values.numpy() for name, values in result.items() if values.shape == points.shape[:1]
    }
    if palette is None and 'relevancy_matrix' in result:
        best = result['relevancy_matrix'].amax(-1).numpy()
        colors = similarity_colors(best, *_RELEVANCY_RANGE)
    elif palette is None:
        colors = instance_colors(columns['labels'])
    else:
        colors = class_colors(columns['labels'], palette)
    write_ply(path, points.numpy(), colors, columns)


def slug(phrase: str) -> str:
    """A phrase as a part of a file name."""
    kept = ''.join(letter if letter.isalnum() else '-' for letter in phrase.lower())
    return '-'.join(part for part in kept.split('-') if part)[:40] or 'text'


def _paint_rgb(shown: dict[str, Tensor]) -> np.ndarray:
    return (shown['rgb'].clamp(0, 1) * 255).round().byte().numpy()


def _paint_depth(shown: dict[str, Tensor]) -> np.ndarray:
    depth = shown['depth']
    far = float(depth.flatten().sort().values[int(0.99 * (depth.numel() - 1))])
    return _on_pixels(depth, lambda rows: similarity_colors(-rows, -max(far, 1e-3), 0.0))


def _paint_classes(shown: dict[str, Tensor], palette: np.ndarray) -> np.ndarray:
    labels = torch.where(shown['accumulation'] > 0.5, shown['semantics'].argmax(-1), -1)
    return _on_pixels(labels, lambda rows: class_colors(rows, palette))


def _relevancy_painter(source: str, positive: Tensor, negatives: Tensor) -> Painter:
    def paint(shown: dict[str, Tensor]) -> np.ndarray:
        found = relevancy(shown[source].flatten(0, 1), positive[None], negatives)[:, 0]
        colors = similarity_colors(found.numpy(), *_RELEVANCY_RANGE)
        return colors.reshape(*shown[source].shape[:2], 3)

    return paint


def _on_map(values: Tensor, colors: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    return colors(values.flatten(0, 1).numpy()).reshape(*values.shape[:2], 3)


def _on_pixels(values: Tensor, colors: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    return colors(values.flatten().numpy()).reshape(*values.shape, 3)
