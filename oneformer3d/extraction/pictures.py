"""Pictures of stored CLIP features: on the images, and lifted to the cloud.

Enters: a feature store, the frames of a scene and how to colour. Leaves: ``<frame>.<way>.png``
(image beside its map), ``cloud.<way>.png`` and ``cloud.<way>.ply``, in one folder per scene. All
pictures of a scene share their colours: components are fitted to all of its frames at once.

Ways are ``pca``, ``tsne``, and ``text_<prompt>`` for the relevancy of a prompt (0.5: as near to the
prompt as to the nearest of the canonical phrases).
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from oneformer3d.clip.encoder import ClipEncoder
from oneformer3d.clip.text import CANONICAL_PHRASES, channels_last, pairwise_relevancy
from oneformer3d.data.clouds.as_scan import read_point_cloud
from oneformer3d.data.scenes import Frame
from oneformer3d.files.images import read_image, write_png
from oneformer3d.files.ply import write_ply
from oneformer3d.lifting.pixel_shuffle import frozen_tokens
from oneformer3d.lifting.sampling import gather_pairs
from oneformer3d.store import FeatureStore, StoreStamp
from oneformer3d.visualization.features import (
    PcaColors,
    feature_colors,
    resize_colors,
    similarity_colors,
)
from oneformer3d.visualization.palette import UNLABELED
from oneformer3d.visualization.render import PointRaster

from .uv_index import UvIndex, build_scene_index

METHODS = ('pca', 'tsne')
Coloring = Callable[[np.ndarray], np.ndarray]  # rows (N, C) → colours (N, 3) uint8


class TextRelevancy:
    """Relevancy of prompts to features in the text space.

    Args:
        encoder: the CLIP that made the features.
        prompts: what to look for.
        stamp: of the store with the features.

    Raises:
        ValueError: the features are of another CLIP, or not in its text space.
    """

    def __init__(self, encoder: ClipEncoder, prompts: Sequence[str], stamp: StoreStamp) -> None:
        if stamp.mode != 'clip':
            raise ValueError(
                f'the store holds features of mode {stamp.mode!r}; text needs mode "clip": '
                'extract them with --mode clip'
            )
        if stamp.weights_digest != encoder.weights_digest:
            raise ValueError(
                f'the store was made by {stamp.encoder} ({stamp.weights_digest}), the prompts '
                f'would be read by {encoder.name} ({encoder.weights_digest})'
            )
        self.prompts = list(prompts)
        self._text = encoder.encode_text(self.prompts).cpu()
        self._canonical = encoder.encode_text(CANONICAL_PHRASES).cpu()

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Features (N, D) → relevancy (N, T) in [0, 1], one column per prompt."""
        rows = torch.from_numpy(np.asarray(features, dtype=np.float32))
        return pairwise_relevancy(rows, self._text, self._canonical).numpy()


def draw_scene(
    store: FeatureStore,
    frames: Sequence[Frame],
    out: str | Path,
    methods: Sequence[str] = ('pca',),
    relevancy: TextRelevancy | None = None,
    with_cloud: bool = True,
    index: UvIndex | None = None,
    on_picture: Callable[[Path], None] | None = None,
) -> list[Path]:
    """Draw the features of a scene's frames.

    Args:
        store: holds features of the frames.
        frames: of one scene.
        out: folder; the scene gets its own in it.
        methods: some of ``METHODS``.
        relevancy: also draw these prompts.
        with_cloud: also draw the features lifted to the scene's points.
        index: visible pairs; None works them out.
        on_picture: called with each file.

    Returns:
        The files.

    Raises:
        ValueError: no frame of the scene is in the store, or an unknown method.
    """
    unknown = set(methods) - set(METHODS)
    if unknown:
        raise ValueError(f'methods: unknown {sorted(unknown)}, expected some of {METHODS}')
    scene = frames[0].scene
    frames = [frame for frame in frames if store.has(scene.name, frame.name)]
    if not frames:
        raise ValueError(f'{scene.name}: none of its frames is in the store')

    maps = torch.stack(
        [torch.from_numpy(store.get(scene.name, frame.name)['feat']).float() for frame in frames]
    )
    maps = frozen_tokens(maps, store.stamp.shuffle_factor)  # (V, C, h, w)
    ways = _ways(channels_last(maps).flatten(0, -2).numpy(), methods, relevancy)
    written = []

    def keep(path: Path) -> None:
        written.append(path)
        if on_picture is not None:
            on_picture(path)

    folder = Path(out) / scene.name

    for frame, feature_map in zip(frames, maps):
        image = read_image(frame.image_path, scene.image_size)
        for way, coloring in ways.items():
            path = folder / f'{frame.name}.{way}.png'
            write_png(path, _beside(image, feature_map, coloring))
            keep(path)

    if with_cloud:
        index = index or build_scene_index(frames)[0]
        _draw_cloud(frames, maps, index, ways, relevancy, folder, keep)
    return written


def lift_features(maps: Tensor, frames: Sequence[str], index: UvIndex) -> tuple[Tensor, Tensor]:
    """Mean over the frames in which a point is visible.

    Args:
        maps: (V, C, h, w) of these frames.
        frames: V names.
        index: of these frames and perhaps of others.

    Returns:
        (N, C) float32, and the number of frames (N,).
    """
    row_of = {name: row for row, name in enumerate(frames)}
    rows = torch.tensor([row_of.get(name, -1) for name in index.frames], dtype=torch.int64)

    # pairs of these frames, with their rows as views
    view = rows[index.pairs.view]  # (P,)
    pairs = index.pairs.select(view >= 0)
    pairs = type(pairs)(pairs.point, view[view >= 0], pairs.uv, pairs.depth_z)
    return gather_pairs(maps, pairs, index.image_size, num_points=index.num_points)


def _ways(
    rows: np.ndarray, methods: Sequence[str], relevancy: TextRelevancy | None
) -> dict[str, Coloring]:
    """Name → colouring, fitted to these rows."""
    ways: dict[str, Coloring] = {}
    if 'pca' in methods:
        ways['pca'] = PcaColors(rows)
    if 'tsne' in methods:
        ways['tsne'] = _FittedTsne(rows)
    if relevancy is not None:
        for column, prompt in enumerate(relevancy.prompts):
            ways[f'text_{_slug(prompt)}'] = _column_coloring(relevancy, column)
    return ways


class _FittedTsne:
    """t-SNE knows only the rows it embedded: others take their nearest one's colour."""

    def __init__(self, rows: np.ndarray, max_rows: int = 1500) -> None:
        chosen = np.linspace(0, len(rows) - 1, min(len(rows), max_rows)).astype(np.int64)
        self._rows = rows[chosen]
        self._colors = feature_colors(self._rows, 'tsne')

    def __call__(self, features: np.ndarray) -> np.ndarray:
        tree_rows = torch.from_numpy(self._rows)
        parts = torch.from_numpy(np.asarray(features, dtype=np.float32)).split(4096)
        nearest = [torch.cdist(part, tree_rows).argmin(dim=1) for part in parts]
        return self._colors[torch.cat(nearest).numpy()]


def _column_coloring(relevancy: TextRelevancy, column: int) -> Coloring:
    return lambda rows: similarity_colors(relevancy(rows)[:, column])


def _beside(image: np.ndarray, feature_map: Tensor, coloring: Coloring) -> np.ndarray:
    height, width = feature_map.shape[1:]
    colors = coloring(channels_last(feature_map).flatten(0, 1).numpy())
    shown = resize_colors(colors.reshape(height, width, 3), image.shape[:2])
    return np.concatenate([image, shown], axis=1)


def _draw_cloud(
    frames: Sequence[Frame],
    maps: Tensor,
    index: UvIndex,
    ways: Mapping[str, Coloring],
    relevancy: TextRelevancy | None,
    folder: Path,
    keep: Callable[[Path], None],
) -> None:
    points = read_point_cloud(frames[0].scene.points_path)
    lifted, num_views = lift_features(maps, [frame.name for frame in frames], index)
    if len(lifted) != len(points):
        raise ValueError(
            f'{frames[0].scene.name}: the uv index is of {len(lifted)} points, the cloud has '
            f'{len(points)}'
        )

    visible, rows = (num_views > 0).numpy(), lifted.numpy()
    raster = PointRaster(points[:, :3])
    labels = {'num_views': num_views.numpy().astype(np.int32)}
    if relevancy is not None:
        values = relevancy(rows) * visible[:, None]  # (N, T)
        labels |= {f'text_{_slug(p)}': v for p, v in zip(relevancy.prompts, values.T)}

    for way, coloring in ways.items():
        colors = np.tile(np.array(UNLABELED, dtype=np.uint8), (len(points), 1))
        if visible.any():
            colors[visible] = coloring(rows[visible])
        write_png(folder / f'cloud.{way}.png', raster.paint(colors))
        keep(folder / f'cloud.{way}.png')
        write_ply(folder / f'cloud.{way}.ply', points[:, :3], colors, labels)
        keep(folder / f'cloud.{way}.ply')


def _slug(prompt: str) -> str:
    """A prompt as a part of file and property names."""
    slug = re.sub(r'[^A-Za-z0-9]+', '_', prompt).strip('_').lower()[:40]
    return slug or 'prompt'
