"""Pictures and labelled clouds of every tested scene, written without a display.

Enters: the batches and predictions of a test run. Leaves: in ``out_dir`` for every scene
``<scene>.png`` (input | semantic | instances, ground truth below) and ``<scene>.ply`` (coloured by
class; properties semantic, instance, panoptic and, where there is ground truth, gt_semantic,
gt_instance).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.hooks import Hook
from mmengine.runner import Runner

from oneformer3d.data.class_tables import ClassTable, get_class_table
from oneformer3d.data.scene_files import read_points
from oneformer3d.files.images import write_png
from oneformer3d.files.names import validate_scene_name
from oneformer3d.files.ply import write_ply
from oneformer3d.registry import HOOKS
from oneformer3d.visualization.figure import segmentation_figure
from oneformer3d.visualization.labels import annotated_labels, predicted_labels, to_array
from oneformer3d.visualization.palette import class_colors


@HOOKS.register_module()
class SegVisualizationHook(Hook):
    """Write a PNG and a PLY for the scenes of a test run.

    Args:
        out_dir: folder for the files.
        score_thr: instances with a lower score are not drawn.
        interval: draw the first of every so many batches.
        class_table: name of the class table; by default the tested dataset's own.
        size: (H, W) of each panel.
    """

    def __init__(
        self,
        out_dir: str,
        score_thr: float = 0.3,
        interval: int = 1,
        class_table: str | None = None,
        size: tuple[int, int] = (480, 640),
    ) -> None:
        if interval < 1:
            raise ValueError(f'interval must be positive, got {interval}')
        self.out_dir = Path(out_dir)
        self.score_thr = score_thr
        self.interval = interval
        self.class_table = class_table
        height, width = size
        self.size = (height, width)

    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict[str, Any] | None = None,
        outputs: Sequence[Any] | None = None,
    ) -> None:
        """Write the files of this batch's scenes."""
        if batch_idx % self.interval:
            return
        if data_batch is None or outputs is None:
            return
        dataset: Any = runner.test_dataloader.dataset
        table = get_class_table(self.class_table or dataset.metainfo['class_table'])
        # of several views of test-time augmentation the first is the scene as it is
        inputs = data_batch['inputs']
        inputs = inputs[0] if isinstance(inputs, list) else inputs
        for index, (points, sample) in enumerate(zip(inputs['points'], outputs)):
            name = _scene_name(sample.metainfo, f'batch{batch_idx:05d}_{index}')
            cloud = _original_points(sample.metainfo, to_array(points))
            self.write_scene(name, cloud, sample, table)

    def write_scene(self, name: str, points: np.ndarray, sample: Any, table: ClassTable) -> None:
        """Write one scene.

        Args:
            name: stem of the file names.
            points: (N, 6) xyz in metres, rgb 0–255.
            sample: Det3DDataSample with ``pred_pts_seg`` and perhaps ``eval_ann_info``.
            table: names and colours of the classes.
        """
        prediction = predicted_labels(sample.pred_pts_seg, self.score_thr)
        truth = annotated_labels(getattr(sample, 'eval_ann_info', None))
        xyz, rgb = points[:, :3], points[:, 3:6].astype(np.uint8)
        image = segmentation_figure(
            xyz, rgb, prediction, table.classes, table.palette, truth, self.size
        )

        labels = {
            'semantic': prediction.semantic,
            'instance': prediction.instance,
            'panoptic': prediction.panoptic,
        }
        if truth is not None:
            labels |= {'gt_semantic': truth.semantic, 'gt_instance': truth.instance}
        labels = {key: values for key, values in labels.items() if values is not None}

        colors = class_colors(labels['semantic'], table.palette)
        write_ply(self.out_dir / f'{name}.ply', xyz, colors, labels)
        write_png(self.out_dir / f'{name}.png', image)


def _scene_name(metainfo: dict[str, Any], default: str) -> str:
    name = metainfo.get('scene_id')
    if name is None and metainfo.get('lidar_path') is not None:
        name = Path(metainfo['lidar_path']).stem
    return default if name is None else validate_scene_name(name)


def _original_points(metainfo: dict[str, Any], points: np.ndarray) -> np.ndarray:
    """The scene as it is on disk; the model's own input where that is not the same points."""
    path = metainfo.get('lidar_path')
    if path is not None and Path(path).is_file():
        original = read_points(path)
        if len(original) == len(points):
            return original

    # The network's colours are centred on zero: spread whatever range they have over 0–255.
    rgb = points[:, 3:6]
    low, high = (float(rgb.min()), float(rgb.max())) if rgb.size else (0.0, 0.0)
    spread = (rgb - low) * (255.0 / (high - low)) if high > low else np.full_like(rgb, 127.0)
    return np.concatenate([points[:, :3], spread], axis=1)
