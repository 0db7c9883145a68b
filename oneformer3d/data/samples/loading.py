"""Scene files → arrays of N points.

Enters: ``results`` with the paths of a scene. Leaves: ``results`` with
points (N, 6) float32 (xyz in metres, rgb 0–255), augmented_from_original (4, 4) float64,
sp_pts_mask (N,) int64 dense, pts_semantic_mask (N,) int64 (0…C−1, C unlabeled) and
pts_instance_mask (N,) int64 (−1 none, 0…I−1 dense). Every fault is named with its file.
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.logging import print_log

from oneformer3d.registry import TRANSFORMS

from ..class_tables import ClassTable, get_class_table
from ..scene_files import read_labels, read_points
from .instance_ids import contiguous_instances


@TRANSFORMS.register_module()
class LoadScenePoints:
    """Load a scene's points; see ``read_points`` for what is checked."""

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add ``points`` and the identity ``augmented_from_original``."""
        return {
            **results,
            'points': read_points(results['lidar_path']),
            'augmented_from_original': np.eye(4),
        }


@TRANSFORMS.register_module()
class LoadSceneAnnotations:
    """Load superpoints and masks and bring their ids to the program's.

    Class ids that the table does not know become unlabeled (ScanNet has hundreds of them);
    ids that cannot be class ids are an error. Instances keep their id only where the class has
    instances (``ClassTable.instance_classes``); ids that break the rule are mended and logged.

    Args:
        with_superpoints: load ``sp_pts_mask``.
        with_semantic: load ``pts_semantic_mask``.
        with_instance: load ``pts_instance_mask``; needs the semantic mask.
        class_table: name of the class table; the dataset's own by default.
    """

    def __init__(
        self,
        with_superpoints: bool = True,
        with_semantic: bool = True,
        with_instance: bool = True,
        class_table: str | None = None,
    ) -> None:
        if with_instance and not with_semantic:
            raise ValueError('instances need the semantic mask: with_semantic=True')
        self.with_superpoints = with_superpoints
        self.with_semantic = with_semantic
        self.with_instance = with_instance
        self.class_table = class_table

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add the masks; in test mode also ``eval_ann_info`` with copies for the metric."""
        results = dict(results)
        num_points = len(results['points'])
        masks: dict[str, np.ndarray] = {}
        if self.with_superpoints:
            path = _path_of(results, 'super_pts_path')
            masks['sp_pts_mask'] = dense_superpoints(read_labels(path, num_points), path)

        if self.with_semantic:
            table = get_class_table(self.class_table or results['class_table'])
            path = _path_of(results, 'pts_semantic_mask_path')
            semantic = contiguous_semantic(read_labels(path, num_points), table, path)
            masks['pts_semantic_mask'] = semantic
        if self.with_instance:
            path = _path_of(results, 'pts_instance_mask_path')
            instance, doubts = contiguous_instances(
                read_labels(path, num_points), semantic, table, path
            )
            masks['pts_instance_mask'] = instance
            for doubt in doubts:
                print_log(doubt, logger='current', level=logging.WARNING)

        if results.get('test_mode'):
            results['eval_ann_info'] = {key: mask.copy() for key, mask in masks.items()}
        return {**results, **masks}


@TRANSFORMS.register_module()
class SamplePoints:
    """Keep at most so many points, drawn at random; superpoints and instances stay dense.

    Args:
        num_points: how many to draw, at most as many as there are.
        replace: draw with replacement, as the published S3DIS pipeline does. Without, a cloud
            that is small enough stays whole.
    """

    def __init__(self, num_points: int, replace: bool = True) -> None:
        if num_points < 1:
            raise ValueError(f'num_points must be positive, got {num_points}')
        self.num_points = num_points
        self.replace = replace

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Return ``results`` with the drawn points and their labels."""
        num_points = len(results['points'])
        if not self.replace and num_points <= self.num_points:
            return results
        chosen = np.random.choice(
            num_points, min(num_points, self.num_points), replace=self.replace
        )

        results = dict(results)
        for key in ('points', 'elastic_coords', 'pts_semantic_mask'):
            if key in results:
                results[key] = results[key][chosen]
        for key in ('sp_pts_mask', 'pts_instance_mask'):
            if key in results:
                results[key] = densify(results[key][chosen])
        return results


def dense_superpoints(ids: np.ndarray, source: str | Path = 'superpoints') -> np.ndarray:
    """Superpoint ids (N,) → the same without gaps, 0…S−1 in ascending order.

    Raises:
        ValueError: negative ids.
    """
    if ids.min() < 0:
        raise ValueError(f'{source}: superpoint id {ids.min()} is negative')
    return densify(ids)


def contiguous_semantic(
    raw: np.ndarray, table: ClassTable, source: str | Path = 'labels'
) -> np.ndarray:
    """Class ids on disk (N,) → 0…C−1, C where the table does not know them.

    Raises:
        ValueError: ids outside 0…65535, naming ``source``.
    """
    try:
        return table.contiguous_from_raw(raw)
    except ValueError as error:
        raise ValueError(f'{source}: {error}') from error


def densify(ids: np.ndarray) -> np.ndarray:
    """Ids (N,) → 0…K−1 in the order of the old ids; negative ones become −1."""
    valid = ids >= 0
    dense = np.full(len(ids), -1, dtype=np.int64)
    dense[valid] = np.unique(ids[valid], return_inverse=True)[1]
    return dense


def _path_of(results: dict[str, Any], key: str) -> str:
    if key not in results:
        raise ValueError(f'{results.get("scene_id", "scene")}: its infos have no {key}')
    return results[key]
