"""Loaded scene → the sample a model receives.

Enters: ``results`` with points (N, 6), perhaps elastic_coords (N, 3), views (``PosedViews``) and
the masks (N,).
Leaves: ``dict(inputs=dict(points[, elastic_coords, views]), data_samples=Det3DDataSample)``; the
sample has ``gt_pts_seg`` (PointData of the masks there are), metainfo, and in test mode
``eval_ann_info``.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from mmdet3d.structures import Det3DDataSample, PointData
from torch import Tensor

from oneformer3d.registry import TRANSFORMS
from oneformer3d.structures import PosedViews

_MASK_KEYS = ('sp_pts_mask', 'pts_semantic_mask', 'pts_instance_mask')


@TRANSFORMS.register_module()
class PackSceneInputs:
    """Pack a scene.

    Args:
        meta_keys: what of ``results`` goes to the sample's metainfo, where it is there.
    """

    def __init__(
        self,
        meta_keys: Sequence[str] = (
            'scene_id',
            'lidar_path',
            'axis_align_matrix',
            'augmented_from_original',
            'sample_idx',
        ),
    ) -> None:
        self.meta_keys = tuple(meta_keys)

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Return the sample.

        Raises:
            ValueError: masks, elastic coordinates or views of another number of points.
        """
        points = results['points']
        inputs: dict[str, Tensor | PosedViews] = {
            'points': torch.from_numpy(np.ascontiguousarray(points, dtype=np.float32))
        }
        if 'elastic_coords' in results:
            _check_length(results, 'elastic_coords', len(points))
            coords = np.ascontiguousarray(results['elastic_coords'], dtype=np.float32)
            inputs['elastic_coords'] = torch.from_numpy(coords)
        if 'views' in results:
            inputs['views'] = _packed_views(results)

        masks = PointData()
        for key in _MASK_KEYS:
            if key in results:
                _check_length(results, key, len(points))
                mask = np.ascontiguousarray(results[key], dtype=np.int64)
                setattr(masks, key, torch.from_numpy(mask))

        data_sample = Det3DDataSample()
        data_sample.gt_pts_seg = masks
        metainfo = {key: results[key] for key in self.meta_keys if key in results}
        for key in ('axis_align_matrix', 'augmented_from_original'):
            if key in metainfo:
                metainfo[key] = np.asarray(metainfo[key], dtype=np.float32)
        data_sample.set_metainfo(metainfo)
        if 'eval_ann_info' in results:
            data_sample.eval_ann_info = results['eval_ann_info']
        return {'inputs': inputs, 'data_samples': data_sample}


def _packed_views(results: dict[str, Any]) -> PosedViews:
    """The views with the matrix of the augmentation."""
    views: PosedViews = results['views']
    if views.num_points != len(results['points']):
        raise ValueError(
            f'{results.get("scene_id", "scene")}: views belong to {views.num_points} points, '
            f'got {len(results["points"])}: load them after the points are drawn'
        )
    augmented_from_original = np.asarray(results['augmented_from_original'], dtype=np.float32)
    return replace(views, augmented_from_original=torch.from_numpy(augmented_from_original))


def _check_length(results: dict[str, Any], key: str, num_points: int) -> None:
    if len(results[key]) != num_points:
        raise ValueError(
            f'{results.get("scene_id", "scene")}: {key} has {len(results[key])} rows '
            f'for {num_points} points'
        )
