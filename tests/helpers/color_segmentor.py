"""A stand-in for the segmentor whose answer for a point depends on that point's colour alone.

A point of colour (50 k, 10 i, b) has class k and, for the things k ≥ 2, belongs to instance i. So
what the inferencer should give for a scene is known, whatever tiles it is cut into.
"""

import json
from pathlib import Path

import numpy as np
import torch
from mmdet3d.structures import PointData
from mmengine.model import BaseModel

from oneformer3d.data.samples.preprocessor import SceneDataPreprocessor
from oneformer3d.registry import MODELS

CLASSES = ('wall', 'floor', 'table', 'chair', 'lamp')


@MODELS.register_module(force=True)
class ColorSegmentor(BaseModel):
    """See the module. ``voxel_size`` is what the inferencer thins to."""

    def __init__(self, voxel_size: float, num_weights: int = 3, use_superpoints: bool = True):
        super().__init__(SceneDataPreprocessor())
        self.weight = torch.nn.Parameter(torch.zeros(num_weights))
        self.num_semantic_classes = 5
        self.instance_classes = (2, 3, 4)
        self.use_superpoints = use_superpoints

    def forward(self, inputs, data_samples, mode='predict'):
        assert mode == 'predict'
        for points, sample in zip(inputs['points'], data_samples):
            has_superpoints = 'sp_pts_mask' in sample.gt_pts_seg
            assert has_superpoints == self.use_superpoints
            if has_superpoints:
                ids = sample.gt_pts_seg.sp_pts_mask
                assert len(ids.unique()) == int(ids.max()) + 1
                assert len(ids) == len(points)
            sample.pred_pts_seg = self.answer(points.cpu().numpy())
        return data_samples

    @staticmethod
    def answer(points: np.ndarray) -> PointData:
        rgb = points[:, 3:] * 127.5 + 127.5
        semantic = np.rint(rgb[:, 0] / 50).astype(np.int64)
        instance = np.where(semantic >= 2, np.rint(rgb[:, 1] / 10).astype(np.int64), -1)
        ids, first = np.unique(instance[instance >= 0], return_index=True)
        masks = instance[None] == ids[:, None]
        panoptic = semantic.copy()
        for rank, mask in enumerate(masks):
            panoptic[mask] = 2 + rank
        return PointData(
            pts_semantic_mask=[semantic, semantic],
            pts_instance_mask=[masks, panoptic],
            instance_labels=semantic[instance >= 0][first] - 2,
            # Smaller ids score better; an id of 20 and more falls below any threshold.
            instance_scores=np.clip(0.95 - 0.05 * ids, 0.01, 1).astype(np.float32),
        )


def two_block_scene(spacing: float = 0.1) -> np.ndarray:
    """A floor of 8 × 3 m with six boxes, one of them across the middle: (N, 6) float32."""
    parts = []
    grid = np.stack(np.meshgrid(np.arange(0, 8, spacing), np.arange(0, 3, spacing)), -1)
    floor = np.zeros((grid[..., 0].size, 6))
    floor[:, :2] = grid.reshape(-1, 2)
    floor[:, 3] = 50
    parts.append(floor)
    boxes = [(0.5, 2), (1.7, 3), (3.7, 2), (5.5, 4), (6.3, 3), (7.1, 2)]
    for number, (x, label) in enumerate(boxes, start=1):
        steps = np.arange(0, 0.6, spacing)
        box = np.stack(np.meshgrid(x + steps, 1 + steps, 0.3 + steps), -1).reshape(-1, 3)
        color = np.tile([50.0 * label, 10.0 * number, 0], (len(box), 1))
        parts.append(np.concatenate([box, color], axis=1))
    return np.concatenate(parts).astype(np.float32)


def write_config(folder: Path, **model) -> Path:
    """A config for the stand-in, with its class table beside it."""
    table = folder / 'table.json'
    table.write_text(json.dumps({'classes': CLASSES, 'stuff': CLASSES[:2]}))
    path = folder / 'config.py'
    settings = {'type': 'ColorSegmentor', 'voxel_size': 0.05, **model}
    path.write_text(
        "custom_imports = dict(imports=['tests.helpers.color_segmentor'])\n"
        f'model = {settings!r}\n'
        'test_dataloader = dict(dataset=dict(\n'
        f"    type='IndoorSegDataset', class_table={str(table)!r},\n"
        "    pipeline=[dict(type='LoadScenePoints'), dict(type='LoadSceneAnnotations'),\n"
        "              dict(type='NormalizeColor'), dict(type='PackSceneInputs')]))\n"
    )
    return path


def write_checkpoint(folder: Path, **model) -> Path:
    """Weights of the stand-in."""
    path = folder / 'weights.pth'
    torch.save({'state_dict': ColorSegmentor(0.05, **model).state_dict()}, path)
    return path
