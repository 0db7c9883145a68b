"""Pictures of a field: views of all it knows, a turn on the spot, a labelled cloud.

Enters: a ``FittedField`` and cameras. Leaves: PNG, GIF and PLY files. Colours of features are the
field's own, fitted once, and are the same in every picture.

Letters: V views, H × W pixels, N points.
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
from ..fitting.surfaces import drawn_heads, feature_colors_of, observations_of
from .evaluate import render_view
from .text import TextQuery, query_lerf_with_text, relevancy, text_head

_FRAME_MILLISECONDS = 80
_RELEVANCY_RANGE = (0.4, 0.7)
_RELEVANCY = 'relevancy'  # of the phrases, among the maps of a view
_MIN_OPACITY = 0.5  # of a pixel that shows a surface
Painter = Callable[[dict[str, Tensor]], np.ndarray]


def draw_views(
    fitted: FittedField,
    cameras: Sequence[Camera],
    names: Sequence[str],
    out: str | Path,
    text: TextQuery | None = None,
) -> list[Path]:
    """Draw ``<name>.<what>.png`` of views.

    Args:
        fitted: the field.
        cameras: single cameras, each of the size of its picture.
        names: of the files.
        out: folder.
        text: phrases whose relevancy is drawn, too.

    Returns:
        The files.
    """
    painters = make_painters(fitted, text)
    written = []
    for camera, name in zip(cameras, names, strict=True):
        maps = render_view(fitted, camera)
        if text is not None:
            maps[_RELEVANCY] = relevancy_map(fitted, camera, maps, text)
        for what, paint in painters.items():
            path = Path(out) / f'{name}.{what}.png'
            write_png(path, paint(maps))
            written.append(path)
    return written


def make_painters(fitted: FittedField, text: TextQuery | None = None) -> dict[str, Painter]:
    """Name → function from rendered maps to a picture (H, W, 3) uint8, for what the field has."""
    heads = fitted.field.head_nets
    painters: dict[str, Painter] = {'rgb': _paint_rgb, 'depth': _paint_depth}
    palette = fitted.palette
    if 'semantics' in heads and palette is not None:
        painters['semantics'] = lambda maps: _paint_classes(maps, palette)
    for name in drawn_heads(fitted):
        colors = fitted.colors.get(name) or feature_colors_of(fitted, name)
        painters[name] = _component_painter(name, colors)

    if text is not None:
        for column, phrase in enumerate(text.phrases):
            painters[f'text-{slug(phrase)}'] = _relevancy_painter(column)
    return painters


def relevancy_map(
    fitted: FittedField, camera: Camera, maps: dict[str, Tensor], text: TextQuery
) -> Tensor:
    """Relevancies (H, W, P) of a rendered view, as the points that it shows would be answered.

    Features are those that were rendered; language is asked for at the rendered surfaces, over all
    patch sizes, and is 0 where a pixel shows none.
    """
    source = text_head(fitted)
    if source != 'language':
        scores = relevancy(maps[source].flatten(0, 1), text.vectors, text.negatives)  # (H·W, P)
        return scores.unflatten(0, camera.image_size)

    shown = maps['accumulation'] > _MIN_OPACITY  # (H, W)
    points = camera.unproject(maps['depth'])[shown]  # (N, 3)
    found = query_lerf_with_text(fitted.field, points, text.vectors, negatives=text.negatives)
    scores = torch.zeros(*camera.image_size, len(text.phrases))
    scores[shown] = found['relevancy_matrix']
    return scores


def turntable_cameras(
    fitted: FittedField, num_frames: int = 36, size: tuple[int, int] = (120, 160)
) -> list[Camera]:
    """Cameras in the middle of the learnt views that turn once around the vertical."""
    poses = observations_of(fitted).camera.world_from_cam  # (V, 4, 4)
    # cameras look along z, their y points down
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
    on_frame: Callable[[], object] | None = None,
) -> None:
    """Write a GIF that turns on the spot.

    Args:
        path: of the file.
        fitted: the field.
        num_frames: of the turn.
        size: (H, W).
        way: of ``make_painters``, or 'all' for all side by side.
        on_frame: called after each.
    """
    painters = make_painters(fitted)
    if way != 'all' and way not in painters:
        raise ValueError(f'no picture {way!r}, expected one of {list(painters)} or all')
    chosen = painters.values() if way == 'all' else [painters[way]]

    frames = []
    for camera in turntable_cameras(fitted, num_frames, size):
        maps = render_view(fitted, camera)
        frames.append(Image.fromarray(np.concatenate([paint(maps) for paint in chosen], axis=1)))
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
    letters = ''.join(letter if letter.isalnum() else '-' for letter in phrase.lower())
    return '-'.join(word for word in letters.split('-') if word)[:40] or 'text'


def _paint_rgb(maps: dict[str, Tensor]) -> np.ndarray:
    return (maps['rgb'].clamp(0, 1) * 255).round().byte().numpy()


def _paint_depth(maps: dict[str, Tensor]) -> np.ndarray:
    depth = maps['depth']
    far = float(depth.flatten().sort().values[int(0.99 * (depth.numel() - 1))])
    return _colored(depth, lambda rows: similarity_colors(-rows, -max(far, 1e-3), 0.0))


def _paint_classes(maps: dict[str, Tensor], palette: np.ndarray) -> np.ndarray:
    labels = torch.where(maps['accumulation'] > _MIN_OPACITY, maps['semantics'].argmax(-1), -1)
    return _colored(labels, lambda rows: class_colors(rows, palette))


def _component_painter(name: str, colors: PcaColors) -> Painter:
    return lambda maps: _colored(maps[name], colors)


def _relevancy_painter(column: int) -> Painter:
    return lambda maps: _colored(
        maps[_RELEVANCY][..., column], lambda rows: similarity_colors(rows, *_RELEVANCY_RANGE)
    )


def _colored(values: Tensor, colors: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Values (H, W) or (H, W, D) → (H, W, 3) by the colours of their rows."""
    return colors(values.flatten(0, 1).numpy()).reshape(*values.shape[:2], 3)
