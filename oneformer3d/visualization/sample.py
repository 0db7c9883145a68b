"""A sample as a network receives it: the cloud in three colourings, and what its views see.

Enters: points (N, 3) metres, rgb (N, 3) uint8, labels (N,), and of each view the pixels (P, 2) of
the points it sees. Leaves: one image (H', W', 3) uint8. Views show whether points and pixels still
belong together after augmentation: the dots stand on what they are called.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .figure import segmentation_figure
from .labels import PointLabels
from .palette import class_colors

_TITLE, _PAD, _PAPER, _INK = 14, 4, (235, 235, 235), (40, 40, 40)
_PER_ROW = 4


@dataclass(frozen=True)
class ViewPixels:
    """What a view sees of a sample.

    Attributes:
        name: of the frame.
        rows: (P,) int64, points that are seen.
        pixels: (P, 2) column and row in pixels of an image of ``size``.
        size: (H, W).
        image: (H', W', 3) uint8, or None where only features are loaded.
    """

    name: str
    rows: np.ndarray
    pixels: np.ndarray
    size: tuple[int, int]
    image: np.ndarray | None = None


def sample_figure(
    points: np.ndarray,
    rgb: np.ndarray,
    labels: PointLabels,
    classes: Sequence[str],
    palette: np.ndarray,
    views: Sequence[ViewPixels] = (),
    size: tuple[int, int] = (360, 480),
) -> np.ndarray:
    """Draw a sample: colours | classes | instances, and its views below, four in a row.

    Args:
        points: (N, 3) metres, z up.
        rgb: (N, 3) uint8.
        labels: classes and instances; what is absent is not drawn.
        classes: C class names.
        palette: (C, 3) uint8.
        views: at the pixels of the points, dots in the colour of the class.
        size: (H, W) of each panel of the cloud.

    Returns:
        (H', W', 3) uint8.
    """
    sheet = segmentation_figure(points, rgb, labels, classes, palette, size=size)
    if not views:
        return sheet

    semantic = labels.semantic
    colors = rgb if semantic is None else class_colors(semantic, palette)
    panels = [view_panel(view, colors, sheet.shape[1] // _PER_ROW) for view in views]
    return np.concatenate([sheet, tiled(panels, sheet.shape[1])], axis=0)


def view_panel(view: ViewPixels, colors: np.ndarray, width: int) -> np.ndarray:
    """One view as wide as asked for, its points (N of ``colors``) as dots: (h, width, 3) uint8."""
    scale = width / view.size[1]
    height = round(view.size[0] * scale)
    if view.image is None:
        picture = Image.new('RGB', (width, height), _PAPER)
    else:
        picture = Image.fromarray(view.image).resize((width, height))

    # every dot is a square of about a hundredth of the picture
    canvas, radius = np.array(picture), max(1, width // 200)
    columns, rows = np.floor((view.pixels + 0.5) * scale).astype(np.int64).T
    for shift_y in range(-radius, radius):
        for shift_x in range(-radius, radius):
            x = np.clip(columns + shift_x, 0, width - 1)
            y = np.clip(rows + shift_y, 0, height - 1)
            canvas[y, x] = colors[view.rows]
    return titled(canvas, f'{view.name}: {len(view.rows)} points')


def label_panel(name: str, image: np.ndarray, colors: np.ndarray, width: int) -> np.ndarray:
    """An image (H, W, 3) above the colours (H, W, 3) of its pixels' classes, uint8."""
    height = round(image.shape[0] * width / image.shape[1])
    both = [Image.fromarray(x).resize((width, height), 0) for x in (image, colors)]
    return titled(np.concatenate([np.asarray(x) for x in both], axis=0), name)


def titled(image: np.ndarray, title: str) -> np.ndarray:
    """The image below a line of text, with a border on the right."""
    bar = Image.new('RGB', (image.shape[1], _TITLE + 2 * _PAD), 'white')
    ImageDraw.Draw(bar).text((_PAD, _PAD), title, _INK, ImageFont.load_default(size=_TITLE))
    panel = np.concatenate([np.asarray(bar), image], axis=0)
    panel[:, -_PAD:] = 255
    return panel


def tiled(panels: Sequence[np.ndarray], min_width: int = 0) -> np.ndarray:
    """Panels (h, w, 3) of one width in rows of four on white, (H', W', 3)."""
    width = max(min_width, panels[0].shape[1] * min(_PER_ROW, len(panels)))
    rows = []
    for first in range(0, len(panels), _PER_ROW):
        some = panels[first : first + _PER_ROW]
        height = max(panel.shape[0] for panel in some)
        filled = [
            np.pad(p, ((0, height - p.shape[0]), (0, 0), (0, 0)), constant_values=255) for p in some
        ]
        row = np.concatenate(filled, axis=1)
        rows.append(
            np.pad(row, ((0, 0), (0, max(0, width - row.shape[1])), (0, 0)), constant_values=255)
        )
    return np.concatenate(rows, axis=0)
