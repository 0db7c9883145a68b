"""Samples of a config as they leave the pipeline, augmentation included, as pictures.

Enters: a config and the name of a split. Leaves: for each sample a name and one image
(H', W', 3) uint8. N points, V views, H × W their pixels.
"""

from collections.abc import Iterator, Mapping
from typing import Any, cast

import numpy as np
from mmengine.config import Config
from mmengine.dataset import BaseDataset, ConcatDataset
from mmengine.registry import init_default_scope

from oneformer3d.data.class_tables import ClassTable, get_class_table
from oneformer3d.data.samples.order import SampleIndex, sample_seed
from oneformer3d.data.samples.transforms import ElasticDistortion, NormalizeColor
from oneformer3d.registry import DATASETS
from oneformer3d.visualization.labels import PointLabels, annotated_labels, to_array
from oneformer3d.visualization.palette import class_colors
from oneformer3d.visualization.sample import (
    ViewPixels,
    label_panel,
    sample_figure,
    tiled,
)

SPLITS = ('train', 'val', 'test')
_IMAGE_WIDTH, _MAX_VIEWS = 360, 8


def open_split(cfg: Config, split: str) -> BaseDataset | ConcatDataset:
    """The dataset of a split, with its files looked for.

    Raises:
        ValueError: the config has no such split.
        FileNotFoundError: files are missing.
    """
    loader = cfg.get(f'{split}_dataloader')
    if loader is None:
        raise ValueError(f'{cfg.filename}: has no {split}_dataloader')
    init_default_scope(cfg.get('default_scope', 'mmdet3d'))
    return DATASETS.build(loader.dataset)


def sample_pictures(
    dataset: BaseDataset | ConcatDataset, num: int, seed: int
) -> Iterator[tuple[str, np.ndarray]]:
    """Names and pictures of samples spread evenly over a dataset, its scenes again if it is small.

    Args:
        dataset: of ``open_split``.
        num: how many.
        seed: of the augmentation; each sample draws another one.
    """
    length = len(dataset)
    places = np.arange(num) % length if num > length else np.arange(num) * length // num
    for place, number in enumerate(places.tolist()):
        sample = dataset[SampleIndex(number, sample_seed(seed, 0, place))]
        name = sample['data_samples'].metainfo.get('scene_id') or 'sample'
        part = dataset.datasets[0] if isinstance(dataset, ConcatDataset) else dataset
        yield f'{place:04d}_{name}', draw_sample(sample, cast(BaseDataset, part))


def draw_sample(sample: Mapping[str, Any], dataset: BaseDataset) -> np.ndarray:
    """One packed sample of a dataset, whose class table and steps say what its numbers mean."""
    inputs = sample['inputs']
    table = get_class_table(dataset.metainfo['class_table'])
    if 'view_images' in inputs:
        return _draw_images(inputs, table)

    points = to_array(inputs['points']).astype(np.float64)
    rgb = _bytes_of(points[:, 3:6], dataset)
    xyz = points[:, :3]
    if 'elastic_coords' in inputs:  # in voxels: what the network sees
        xyz = to_array(inputs['elastic_coords']) * _step(dataset, ElasticDistortion).voxel_size
    views = _seen(inputs['views']) if 'views' in inputs else []
    labels = _labels_of(sample['data_samples'])
    return sample_figure(xyz, rgb, labels, table.classes, table.palette, views)


def _labels_of(sample: Any) -> PointLabels:
    """Annotations of a sample of training or of testing."""
    masks = sample.gt_pts_seg
    given = {key: masks[key] for key in ('pts_semantic_mask', 'pts_instance_mask') if key in masks}
    return annotated_labels(given or sample.get('eval_ann_info')) or PointLabels()


def _step(dataset: BaseDataset, kind: type) -> Any:
    """The step of a class in a dataset's pipeline, or None."""
    found = [step for step in dataset.pipeline.transforms if isinstance(step, kind)]
    return found[0] if found else None


def _bytes_of(colors: np.ndarray, dataset: BaseDataset) -> np.ndarray:
    """Normalised colours (N, 3) → uint8."""
    step = _step(dataset, NormalizeColor)
    if step is not None:
        colors = colors * step.std + step.mean
    return np.clip(np.rint(colors), 0, 255).astype(np.uint8)


def _seen(views: Any) -> list[ViewPixels]:
    """The views that see most of the sample's points, at most eight."""
    point, view, uv = (to_array(x) for x in (views.pairs.point, views.pairs.view, views.pairs.uv))
    counts = np.bincount(view, minlength=views.num_views)
    shown = []
    for index in np.argsort(-counts, kind='stable')[:_MAX_VIEWS].tolist():
        rows = view == index
        image = None
        if views.images is not None:
            image = to_array(views.images[index]).transpose(1, 2, 0)  # (H, W, 3)
        name = views.frames[index] if views.frames else str(index)
        shown.append(ViewPixels(name, point[rows], uv[rows], views.image_size, image))
    return shown


def _draw_images(inputs: Mapping[str, Any], table: ClassTable) -> np.ndarray:
    """Images and the classes of their pixels, of a network of pictures alone."""
    images = to_array(inputs['view_images']).transpose(0, 2, 3, 1)  # (V, H, W, 3)
    labels = to_array(inputs['view_labels'])  # (V, H, W)
    panels = [
        label_panel(
            f'view {index}',
            image,
            class_colors(label.reshape(-1), table.palette).reshape(image.shape),
            _IMAGE_WIDTH,
        )
        for index, (image, label) in enumerate(zip(images, labels, strict=True))
    ]
    return tiled(panels)
