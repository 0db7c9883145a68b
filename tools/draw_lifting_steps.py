"""Draw the steps from images to points for one scene: the pictures of docs/tutorials/lifting.md.

    python tools/draw_lifting_steps.py --scene room5000_00
    python tools/draw_lifting_steps.py --data-root data/synthetic --scene room5000_00 --out pictures

Enters: a data root with infos and a scene with posed images. Leaves: three PNG files, and printed
the numbers that they show. N points, V views.

    lifting_sources.png      an image, and what it does with every point of the cloud
    lifting_depth_test.png   colours lifted by the frustum alone, with a z-buffer, with depth
    lifting_bev.png          the same images splatted on a grid viewed from above
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from oneformer3d.engine.cli import ToolParser, run_tool


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = ToolParser(description=__doc__)
    parser.add_argument('--data-root', default='data/synthetic', help='with infos (%(default)s)')
    parser.add_argument('--split', default='val', help='of the infos (%(default)s)')
    parser.add_argument('--scene', required=True, help='its name in the infos')
    parser.add_argument(
        '--view', type=int, help='of the first picture (default: that with most occluded points)'
    )
    parser.add_argument('--size', type=int, nargs=2, default=(300, 400), metavar=('H', 'W'))
    parser.add_argument('--out', type=Path, default=Path('docs/images'), help='(%(default)s)')
    return parser.parse_args(argv)


if __name__ == '__main__':
    run_tool(parse_args)  # help and wrong arguments are answered before anything heavy is imported

import cv2
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from oneformer3d.data.clouds.as_scan import read_point_cloud
from oneformer3d.data.scenes import read_scenes
from oneformer3d.files.images import read_depth, read_image, write_png
from oneformer3d.lifting import (
    BEVFeatureLifting,
    Camera,
    Reason,
    Visibility,
    lift_mean_features,
    trace_sources,
)
from oneformer3d.visualization.palette import UNLABELED
from oneformer3d.visualization.render import PointRaster

_INK = (40, 40, 40)
_BAR = 26  # pixels of a title's line
_POINT_SIZE = 7  # pixels of a point in the z-buffer: closes a 5 cm cloud at 320 pixels
_REASON_COLORS = {
    Reason.SEEN: (34, 139, 60),
    Reason.BEHIND: (190, 190, 200),
    Reason.OUTSIDE: (150, 170, 205),
    Reason.OCCLUDED: (205, 60, 50),
    Reason.BEFORE_SURFACE: (240, 160, 40),
    Reason.DEPTH_EDGE: (250, 220, 60),
    Reason.NO_DEPTH: (120, 70, 140),
}


@dataclass(frozen=True)
class LoadedScene:
    """A scene with all of its images in memory.

    Attributes:
        points: (N, 6) xyz in metres and colours 0–255.
        images: (V, 3, H, W) float32, 0–255.
        depth: (V, h, w) metres.
        camera: V views of the images.
    """

    points: np.ndarray
    images: Tensor
    depth: Tensor
    camera: Camera

    @property
    def xyz(self) -> Tensor:
        """(N, 3)."""
        return torch.from_numpy(self.points[:, :3].copy())


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    numbers = draw_lifting_steps(
        args.data_root, args.scene, args.out, args.split, args.view, tuple(args.size)
    )
    for name, value in numbers.items():
        print(f'{name:24}{value:8.3f}')


def draw_lifting_steps(
    data_root: str | Path,
    scene: str,
    out: str | Path,
    split: str = 'val',
    view: int | None = None,
    size: tuple[int, int] = (300, 400),
) -> dict[str, float]:
    """Draw the three pictures.

    Args:
        data_root: with ``oneformer3d_infos_<split>.json``.
        scene: its name.
        out: folder for the pictures.
        split: of the infos.
        view: row of the image in the first picture; None takes the one with most occluded points.
        size: (H, W) of each panel.

    Returns:
        Numbers by name: median absolute difference between lifted and scanned colours (0–255)
        with each test, and the share of points that are visible in a view.

    Raises:
        FileNotFoundError, ValueError: no such scene, or broken files.
    """
    loaded = load_scene(data_root, scene, split)
    if view is None:
        view = most_occluded_view(loaded)
    if not 0 <= view < len(loaded.images):
        raise ValueError(f'{scene}: view {view} of {len(loaded.images)}')

    out = Path(out)
    write_png(out / 'lifting_sources.png', sources_figure(loaded, view, size))
    picture, numbers = depth_test_figure(loaded, size)
    write_png(out / 'lifting_depth_test.png', picture)
    write_png(out / 'lifting_bev.png', bev_figure(loaded, size))
    return numbers


def load_scene(data_root: str | Path, scene: str, split: str = 'val') -> LoadedScene:
    """Read points, images and cameras of a scene.

    Raises:
        ValueError: the infos do not list the scene, or it has no images.
    """
    record = read_scenes(data_root, split).get(scene)
    if record is None or not record.images:
        raise ValueError(f'{data_root}: no scene {scene} with images in the infos of {split}')

    frames, size = record.frames, record.image_size
    images = np.stack([read_image(frame.image_path, size, size) for frame in frames])
    depth = np.stack([read_depth(frame.depth_path) for frame in frames])
    return LoadedScene(
        read_point_cloud(record.points_path),
        torch.from_numpy(images).permute(0, 3, 1, 2).float(),  # (V, 3, H, W)
        torch.from_numpy(depth),  # (V, h, w)
        record.cameras(frames),
    )


def most_occluded_view(scene: LoadedScene) -> int:
    """Row of the view in whose image most points lie behind the surface it shows."""
    camera = scene.camera
    traced = trace_sources(
        scene.xyz, camera.intrinsics, camera.world_from_cam, camera.image_size, scene.depth
    )
    return int((traced.reason == Reason.OCCLUDED).sum(1).argmax())


def sources_figure(scene: LoadedScene, view: int, size: tuple[int, int]) -> np.ndarray:
    """An image beside the cloud, coloured by what the view does with each point."""
    camera = scene.camera[view]
    traced = trace_sources(
        scene.xyz, camera.intrinsics, camera.world_from_cam, camera.image_size, scene.depth[view]
    )
    reason = traced.reason[0].numpy()  # (N,)
    colors = np.tile(np.array(UNLABELED, np.uint8), (len(reason), 1))  # (N, 3)
    for value, color in _REASON_COLORS.items():
        colors[reason == value] = color

    image = scene.images[view].permute(1, 2, 0).numpy().astype(np.uint8)  # (H, W, 3)
    image = cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)
    cloud = PointRaster(scene.points[:, :3], size).paint(colors)
    panels = [_titled(image, f'view {view}'), _titled(cloud, 'what it does with the points')]
    row = np.concatenate(panels, axis=1)

    counts = np.bincount(reason, minlength=len(Reason)) / max(1, len(reason))
    entries = [
        (f'{value.name.lower().replace("_", " ")} {counts[value]:.1%}', color)
        for value, color in _REASON_COLORS.items()
        if counts[value] > 0
    ]
    return np.concatenate((row, _legend(entries, row.shape[1])), axis=0)


def depth_test_figure(
    scene: LoadedScene, size: tuple[int, int]
) -> tuple[np.ndarray, dict[str, float]]:
    """The scan's colours, and those of the images lifted with three tests of visibility."""
    camera, scanned = scene.camera, scene.points[:, 3:]
    drawn = Visibility(occlusion='zbuffer', point_size=_POINT_SIZE)
    raster = PointRaster(scene.points[:, :3], size)
    panels, numbers = [_titled(raster.paint(scanned.astype(np.uint8)), 'colours of the scan')], {}

    for name, title, options in (
        ('frustum', 'frustum only', {}),
        ('zbuffer', 'z-buffer of the points', {'visibility': drawn}),
        ('depth', 'depth maps', {'depth': scene.depth}),
    ):
        lifted, count = lift_mean_features(
            scene.xyz, {'colour': scene.images}, camera.intrinsics, camera.world_from_cam,
            camera.image_size, **options,
        )  # fmt: skip
        lifted, visible = lifted.numpy(), (count > 0).numpy()  # (N, 3), (N,)

        error = np.abs(lifted - scanned).mean(axis=1)[visible]
        median = float(np.median(error)) if visible.any() else float('nan')
        numbers[f'median_error_{name}'] = median
        numbers[f'visible_{name}'] = float(visible.mean())

        colors = np.tile(np.array(UNLABELED, np.uint8), (len(scanned), 1))
        colors[visible] = lifted[visible].clip(0, 255).astype(np.uint8)
        panels.append(_titled(raster.paint(colors), f'{title}: median error {median:.1f}'))

    rows = [np.concatenate(panels[i : i + 2], axis=1) for i in (0, 2)]
    return np.concatenate(rows, axis=0), numbers


def bev_figure(scene: LoadedScene, size: tuple[int, int], resolution: float = 0.05) -> np.ndarray:
    """Colours on a grid of ``resolution`` metres, without the ceiling, and the hits per cell."""
    low, high = (scene.points[:, :3].min(axis=0), scene.points[:, :3].max(axis=0))
    cells = np.ceil((high - low)[:2] / resolution).astype(int) + 2
    lifting = BEVFeatureLifting(
        resolution,
        (int(cells[1]), int(cells[0])),
        tuple(((low + high) / 2)[:2].tolist()),
        height_range=(float(low[2]) - 0.1, float(low[2]) + 1.8),
    )

    camera = scene.camera
    grid, count = lifting.create_bev_features(
        None,
        scene.images,
        list(zip(camera.intrinsics.expand(len(scene.images), 3, 3), camera.world_from_cam)),
        image_shape=camera.image_size,
        depth=scene.depth,
    )  # (3, rows, columns), (rows, columns)
    colors = grid.permute(1, 2, 0).clamp(0, 255).byte().numpy()  # (rows, columns, 3)
    colors[count.numpy() == 0] = 255

    # The square root keeps cells with few samples above black.
    hits = (255 * (count / count.max().clamp(min=1)).sqrt()).byte().numpy()
    hits = cv2.cvtColor(cv2.applyColorMap(hits, cv2.COLORMAP_VIRIDIS), cv2.COLOR_BGR2RGB)

    panels = [
        _titled(_fitted(x, size), title)
        for x, title in (
            (colors, f'mean colour of each {round(100 * resolution)} cm column'),
            (hits, f'samples in a column, up to {int(count.max())}'),
        )
    ]
    return np.concatenate(panels, axis=1)


def _fitted(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The image enlarged to fit, the world's y upwards, on white."""
    height, width = image.shape[:2]
    factor = min(size[0] / height, size[1] / width)
    shape = max(1, int(height * factor)), max(1, int(width * factor))
    large = cv2.resize(image[::-1], shape[::-1], interpolation=cv2.INTER_NEAREST)

    canvas = np.full((*size, 3), 255, dtype=np.uint8)
    top, left = (size[0] - shape[0]) // 2, (size[1] - shape[1]) // 2
    canvas[top : top + shape[0], left : left + shape[1]] = large
    return canvas


def _titled(image: np.ndarray, title: str) -> np.ndarray:
    bar = Image.new('RGB', (image.shape[1], _BAR), 'white')
    font = ImageFont.load_default(size=15)
    ImageDraw.Draw(bar).text((image.shape[1] / 2, _BAR / 2), title, _INK, font, anchor='mm')
    return np.concatenate((np.asarray(bar), image), axis=0)


def _legend(entries: Sequence[tuple[str, tuple[int, int, int]]], width: int) -> np.ndarray:
    """Colour chips with names on one line or two."""
    font = ImageFont.load_default(size=14)
    lines: list[list[tuple]] = [[]]
    x = 10
    for name, color in entries:
        length = 26 + int(font.getlength(name)) + 14
        if x + length > width and lines[-1]:
            lines.append([])
            x = 10
        lines[-1].append((x, name, color))
        x += length

    image = Image.new('RGB', (width, _BAR * len(lines)), 'white')
    draw = ImageDraw.Draw(image)
    for row, line in enumerate(lines):
        y = row * _BAR + 6
        for x, name, color in line:
            draw.rectangle((x, y, x + 14, y + 14), fill=color, outline=_INK)
            draw.text((x + 20, y), name, _INK, font)
    return np.asarray(image)


if __name__ == '__main__':
    run_tool(main)
