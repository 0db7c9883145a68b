"""Panels side by side: one prediction of a scene, several and their errors, or scores of texts.

Enters: points (N, 3) metres, rgb (N, 3) uint8 and per-point labels or scores (N,). Leaves:
one image (H', W', 3) uint8. All panels show the same points from the same camera.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from oneformer3d.lifting.camera import Camera

from .features import similarity_colors
from .labels import PointLabels
from .palette import UNLABELED, class_colors, instance_colors
from .render import PointRaster

_TITLE_SIZE, _LEGEND_SIZE, _PAD = 18, 15, 12
_PANELS = 3  # of scores, in a row
_INK = (40, 40, 40)
_RIGHT, _WRONG = (205, 205, 205), (214, 39, 40)

_Cell = tuple[str, np.ndarray] | None  # title and colours (N, 3), or an empty panel


def segmentation_figure(
    points: np.ndarray,
    rgb: np.ndarray,
    prediction: PointLabels,
    classes: Sequence[str],
    palette: np.ndarray,
    ground_truth: PointLabels | None = None,
    size: tuple[int, int] = (480, 640),
    camera: Camera | str = 'dollhouse',
) -> np.ndarray:
    """Draw one scene: input | semantic | instances (| panoptic), and the ground truth below.

    Args:
        points: (N, 3) metres, z up.
        rgb: (N, 3) uint8 colours of the scan.
        prediction: what to show in the first row.
        classes: C class names.
        palette: (C, 3) uint8 class colours.
        ground_truth: what to show in the second row.
        size: (H, W) of each panel.
        camera: see ``oneformer3d.visualization.render.render_points``.

    Returns:
        (H', W', 3) uint8.

    Raises:
        ValueError: Labels or colours are not one for each point.
    """
    raster = PointRaster(points, size, camera)
    rows: list[list[_Cell]] = [
        [(_input_title(raster), rgb), *_label_panels(prediction, palette, '')]
    ]
    if ground_truth is not None:
        rows.append([None, *_label_panels(ground_truth, palette, 'ground truth: ')])
    shown = [labels.semantic for labels in (prediction, ground_truth) if labels is not None]
    return _sheet(raster, rows, [s for s in shown if s is not None], classes, palette)


def comparison_figure(
    points: np.ndarray,
    predictions: Mapping[str, np.ndarray],
    ground_truth: np.ndarray,
    classes: Sequence[str],
    palette: np.ndarray,
    size: tuple[int, int] = (480, 640),
    camera: Camera | str = 'dollhouse',
) -> np.ndarray:
    """Draw the classes that several models see in one scene, and below where each is wrong.

    Args:
        points: (N, 3) metres, z up.
        predictions: title → (N,) classes.
        ground_truth: (N,) classes; what is no class counts as unlabeled.
        classes: C class names.
        palette: (C, 3) uint8 class colours.
        size: (H, W) of each panel.
        camera: see ``oneformer3d.visualization.render.render_points``.

    Returns:
        (H', W', 3) uint8.

    Raises:
        ValueError: No predictions, or labels that are not one for each point.
    """
    if not predictions:
        raise ValueError('comparison_figure: expected at least one prediction')
    for title, labels in {**predictions, 'ground truth': ground_truth}.items():
        if np.shape(labels) != (len(points),):
            raise ValueError(f'{title}: expected ({len(points)},) labels, got {np.shape(labels)}')

    labeled = (ground_truth >= 0) & (ground_truth < len(classes))
    top: list[_Cell] = [('Ground truth', class_colors(ground_truth, palette))]
    below: list[_Cell] = [None]
    for title, labels in predictions.items():
        wrong = labeled & (labels != ground_truth)
        colors = np.where(wrong[:, None], _WRONG, _RIGHT).astype(np.uint8)
        colors[~labeled] = UNLABELED
        top.append((title, class_colors(labels, palette)))
        below.append((f'{wrong.sum() / max(1, labeled.sum()):.1%} wrong', colors))

    shown = [ground_truth, *predictions.values()]
    raster = PointRaster(points, size, camera)
    return _sheet(raster, [top, below], shown, classes, palette)


def score_figure(
    points: np.ndarray,
    rgb: np.ndarray,
    scores: Mapping[str, np.ndarray],
    size: tuple[int, int] = (480, 640),
    camera: Camera | str = 'dollhouse',
) -> np.ndarray:
    """Draw how well texts fit the points of a scene, three panels in a row.

    Args:
        points: (N, 3) metres, z up.
        rgb: (N, 3) uint8 colours of the scan, the first panel.
        scores: title → (N,) in 0…1, from dark blue to bright yellow.
        size: (H, W) of each panel.
        camera: see ``oneformer3d.visualization.render.render_points``.

    Returns:
        (H', W', 3) uint8.

    Raises:
        ValueError: scores that are not one for each point.
    """
    raster = PointRaster(points, size, camera)
    cells: list[_Cell] = [(_input_title(raster), rgb)]
    for title, values in scores.items():
        if np.shape(values) != (len(points),):
            raise ValueError(f'{title}: expected ({len(points)},) scores, got {np.shape(values)}')
        cells.append((title, similarity_colors(values)))

    rows = [cells[first : first + _PANELS] for first in range(0, len(cells), _PANELS)]
    return _sheet(raster, rows, (), (), np.zeros((0, 3), np.uint8))


def _input_title(raster: PointRaster) -> str:
    """Title of the first panel; says what it does not show."""
    return f'Input without {raster.num_stray} stray points' if raster.num_stray else 'Input'


def _sheet(
    raster: PointRaster,
    rows: Sequence[Sequence[_Cell]],
    shown: Sequence[np.ndarray],
    classes: Sequence[str],
    palette: np.ndarray,
) -> np.ndarray:
    """Rows of panels above the legend of the classes shown."""
    images = []
    for row in rows:
        panels = [
            _blank(raster.camera.image_size) if cell is None else _panel(raster, *cell)
            for cell in row
        ]
        images.append(np.concatenate(panels, axis=1))

    # narrower rows and the legend are as wide as the widest row
    width = max(image.shape[1] for image in images)
    images = [
        np.pad(i, ((0, 0), (0, width - i.shape[1]), (0, 0)), constant_values=255) for i in images
    ]

    present = _present_classes(shown, len(classes))
    if present:
        images.append(_legend([(classes[k], palette[k]) for k in present], width))
    return np.concatenate(images, axis=0)


def _label_panels(
    labels: PointLabels, palette: np.ndarray, prefix: str
) -> list[tuple[str, np.ndarray]]:
    panels = []
    if labels.semantic is not None:
        panels.append((f'{prefix}semantic', class_colors(labels.semantic, palette)))
    if labels.instance is not None:
        num_instances = len(np.unique(labels.instance[labels.instance >= 0]))
        title = f'{prefix}{num_instances} instance{"" if num_instances == 1 else "s"}'
        panels.append((title, instance_colors(labels.instance)))
    if labels.panoptic is not None:
        panels.append((f'{prefix}panoptic', instance_colors(labels.panoptic)))
    return [(title[:1].upper() + title[1:], colors) for title, colors in panels]


def _panel(raster: PointRaster, title: str, colors: np.ndarray) -> np.ndarray:
    image = raster.paint(colors)
    bar = Image.new('RGB', (image.shape[1], _TITLE_SIZE + _PAD), 'white')
    font = ImageFont.load_default(size=_TITLE_SIZE)
    ImageDraw.Draw(bar).text((image.shape[1] / 2, _PAD / 2), title, _INK, font, anchor='mt')
    return np.concatenate([np.asarray(bar), image], axis=0)


def _blank(size: tuple[int, int]) -> np.ndarray:
    return np.full((size[0] + _TITLE_SIZE + _PAD, size[1], 3), 255, dtype=np.uint8)


def _present_classes(semantics: Sequence[np.ndarray], num_classes: int) -> list[int]:
    """Classes that occur, most points first."""
    if not semantics:
        return []
    labels = np.concatenate(semantics)
    counts = np.bincount(labels[(labels >= 0) & (labels < num_classes)], minlength=num_classes)
    return [int(k) for k in np.argsort(-counts, kind='stable') if counts[k]]


def _legend(entries: Sequence[tuple[str, np.ndarray]], width: int) -> np.ndarray:
    """Colour chips with names, in as many lines as it takes: (h, width, 3) uint8."""
    font = ImageFont.load_default(size=_LEGEND_SIZE)
    entries = [*entries, ('unlabeled, no instance', np.array(UNLABELED))]

    # from left to right, and on the next line where the width ends
    line, step, x = 0, _LEGEND_SIZE + 8, _PAD
    placed = []
    for name, color in entries:
        length = _LEGEND_SIZE + 6 + int(font.getlength(name)) + 2 * _PAD
        if x + length > width and x > _PAD:
            line, x = line + 1, _PAD
        placed.append((x, _PAD // 2 + line * step, name, tuple(int(c) for c in color)))
        x += length

    image = Image.new('RGB', (width, (line + 1) * step + _PAD), 'white')
    draw = ImageDraw.Draw(image)
    for x, y, name, color in placed:
        draw.rectangle((x, y, x + _LEGEND_SIZE, y + _LEGEND_SIZE), fill=color, outline=_INK)
        draw.text((x + _LEGEND_SIZE + 6, y), name, _INK, font)
    return np.asarray(image)
