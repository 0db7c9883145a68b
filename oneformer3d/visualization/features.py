"""Colours of features: rows of numbers that mean nothing to the eye → RGB.

Enters: features (N, C), or similarities (N,). Leaves: (N, 3) uint8. Principal components, t-SNE,
and a colour scale for one number.
"""

from collections.abc import Mapping

import cv2
import numpy as np
from PIL import Image

from oneformer3d.lifting.shapes import expect_shape

_TSNE_ROWS = 2000  # more take minutes; the others get their nearest neighbour's colour
_PERCENTILES = (1.0, 99.0)


class PcaColors:
    """Three principal components as red, green and blue, fitted once and used for many.

    Args:
        features: (N, C) rows to fit; rows that are not finite or all zero are left out.

    Raises:
        ValueError: not (N, C), or no usable row.
    """

    def __init__(self, features: np.ndarray) -> None:
        rows = usable_rows(features)
        self.mean = rows.mean(axis=0)
        centred = rows - self.mean
        # right singular vectors from the small (C, C) side
        values, vectors = np.linalg.eigh(centred.T @ centred)
        axes = vectors[:, np.argsort(-values)[:3]]
        signs = np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
        self.axes = axes * np.where(signs == 0, 1, signs)
        projected = centred @ self.axes
        self.low, self.high = np.percentile(projected, _PERCENTILES, axis=0)

    def state(self) -> dict[str, np.ndarray]:
        """Its numbers, for a file: mean (C,), axes (C, K), low and high (K,), K at most 3."""
        return {'mean': self.mean, 'axes': self.axes, 'low': self.low, 'high': self.high}

    @classmethod
    def from_state(cls, state: Mapping[str, np.ndarray]) -> 'PcaColors':
        """The colours of ``state``."""
        colors = cls.__new__(cls)
        colors.mean, colors.axes = state['mean'], state['axes']
        colors.low, colors.high = state['low'], state['high']
        return colors

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Colours (N, 3) uint8 of rows (N, C)."""
        rows = np.nan_to_num(np.asarray(features, dtype=np.float32))
        colors = to_bytes((rows - self.mean) @ self.axes, self.low, self.high)
        return np.pad(colors, ((0, 0), (0, 3 - colors.shape[1])))


def feature_colors(features: np.ndarray, method: str = 'pca', seed: int = 0) -> np.ndarray:
    """Colours of rows by themselves.

    Args:
        features: (N, C).
        method: 'pca' or 'tsne'.
        seed: of t-SNE.

    Returns:
        (N, 3) uint8.

    Raises:
        ValueError: another method, or no usable row.
    """
    if method == 'pca':
        return PcaColors(features)(features)
    if method == 'tsne':
        return tsne_colors(features, seed)
    raise ValueError(f"no method {method!r}, expected 'pca' or 'tsne'")


def tsne_colors(features: np.ndarray, seed: int = 0) -> np.ndarray:
    """Colours by place in a t-SNE plane: angle is hue, distance from the middle saturation.

    Args:
        features: (N, C).
        seed: of the embedding, and of the selection where N is large.

    Returns:
        (N, 3) uint8.
    """
    from sklearn.manifold import TSNE

    rows = np.nan_to_num(np.asarray(features, dtype=np.float32))
    usable_rows(rows)

    chosen = np.arange(len(rows))
    if len(rows) > _TSNE_ROWS:
        rng = np.random.default_rng(seed)
        chosen = np.sort(rng.choice(len(rows), _TSNE_ROWS, replace=False))
    if len(chosen) < 5:
        return PcaColors(rows)(rows)

    embedding = TSNE(
        perplexity=min(30.0, (len(chosen) - 1) / 3),
        init='pca' if rows.shape[1] > 1 else 'random',
        max_iter=500,
        random_state=seed,
    ).fit_transform(rows[chosen])

    colors = _plane_colors(embedding)
    if len(chosen) == len(rows):
        return colors
    return colors[_nearest(rows, rows[chosen])]


def similarity_colors(values: np.ndarray, low: float = 0.0, high: float = 1.0) -> np.ndarray:
    """Numbers (N,) → colours (N, 3) uint8, dark blue for ``low`` to bright yellow for ``high``."""
    if not high > low:
        raise ValueError(f'expected low below high, got {low} and {high}')
    levels = to_bytes(np.asarray(values, dtype=np.float32)[:, None], low, high)
    table = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_VIRIDIS)
    return np.ascontiguousarray(table[:, 0, ::-1])[levels[:, 0]]


def resize_colors(colors: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Colours (h, w, 3) uint8 of a map's cells at an image's size (H, W), each cell a block."""
    image = Image.fromarray(np.ascontiguousarray(colors))
    return np.asarray(image.resize((size[1], size[0]), Image.Resampling.NEAREST))


def usable_rows(features: np.ndarray) -> np.ndarray:
    """The rows (M, C) float32 that are finite and not all zero.

    Raises:
        ValueError: not (N, C), or there is none.
    """
    features = np.asarray(features, dtype=np.float32)
    expect_shape('features', features, 'N C')
    rows = features[np.isfinite(features).all(axis=1) & features.any(axis=1)]
    if len(rows) == 0:
        raise ValueError('no row of the features is finite and not zero')
    return rows


def to_bytes(values: np.ndarray, low: float | np.ndarray, high: float | np.ndarray) -> np.ndarray:
    """Values between ``low`` and ``high`` as 0–255."""
    span = np.maximum(np.asarray(high) - low, 1e-12)
    return np.rint(np.clip((values - low) / span, 0, 1) * 255).astype(np.uint8)


def _plane_colors(plane: np.ndarray) -> np.ndarray:
    centred = plane - np.median(plane, axis=0)
    radius = np.linalg.norm(centred, axis=1)
    hue = np.degrees(np.arctan2(centred[:, 1], centred[:, 0])) % 360
    saturation = np.clip(radius / max(float(np.percentile(radius, 95)), 1e-12), 0.1, 1)
    hsv = np.stack([hue, saturation, np.full_like(hue, 0.95)], axis=1).astype(np.float32)
    rgb = cv2.cvtColor(hsv[None], cv2.COLOR_HSV2RGB)[0]
    return to_bytes(rgb, 0.0, 1.0)


def _nearest(rows: np.ndarray, references: np.ndarray, chunk: int = 4096) -> np.ndarray:
    """Index of the nearest reference of each row."""
    lengths = (references**2).sum(axis=1)
    chunks = [rows[i : i + chunk] for i in range(0, len(rows), chunk)]
    # ‖x − r‖² = ‖r‖² − 2 x·r + ‖x‖², whose last term is the same for all r
    return np.concatenate([(lengths - 2 * x @ references.T).argmin(axis=1) for x in chunks])
