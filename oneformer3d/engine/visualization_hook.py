"""Pictures and labelled clouds of tested scenes, and pictures of a training's evaluations.

Enters: the batches and predictions of a test run or an evaluation; no display is needed. Leaves,
of an evaluation, pictures where the runner's visualizer writes to (files, TensorBoard, WandB);
of a test run, in ``out_dir`` for every scene
``<scene>.png`` (input | semantic | instances, ground truth below) and ``<scene>.ply`` (coloured by
class; properties semantic, instance, panoptic and, where there is ground truth, gt_semantic,
gt_instance).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dist import is_main_process
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
    """Write a PNG and a PLY for the scenes of a test run; show some scenes of every evaluation.

    Args:
        out_dir: folder for the files of a test run; None writes none.
        num_val: give the pictures of so many first batches of an evaluation to the visualizer, as
            ``val_<scene>`` at the step of the training.
        score_thr: instances with a lower score are not drawn.
        interval: draw the first of every so many batches.
        class_table: name of the class table; by default the tested dataset's own.
        size: (H, W) of each panel.
    """

    def __init__(
        self,
        out_dir: str | None = None,
        num_val: int = 0,
        score_thr: float = 0.3,
        interval: int = 1,
        class_table: str | None = None,
        size: tuple[int, int] = (480, 640),
    ) -> None:
        if interval < 1:
            raise ValueError(f'interval must be positive, got {interval}')
        if out_dir is None and num_val < 1:
            raise ValueError('SegVisualizationHook: needs out_dir or num_val, or it does nothing')
        self.out_dir = None if out_dir is None else Path(out_dir)
        self.num_val = num_val
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
        if self.out_dir is None or batch_idx % self.interval:
            return
        table = self._table(runner.test_dataloader)
        for name, points, sample in _scenes(batch_idx, data_batch, outputs):
            self.write_scene(name, points, sample, table)

    def after_val_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict[str, Any] | None = None,
        outputs: Sequence[Any] | None = None,
    ) -> None:
        """Give pictures of the first batches to the visualizer."""
        if batch_idx >= self.num_val or not is_main_process():
            return
        table = self._table(runner.val_dataloader)
        for name, points, sample in _scenes(batch_idx, data_batch, outputs):
            image = self.draw_scene(points, sample, table)
            runner.visualizer.add_image(f'val_{name}', image, step=runner.iter)

    def _table(self, loader: Any) -> ClassTable:
        return get_class_table(self.class_table or loader.dataset.metainfo['class_table'])

    def draw_scene(self, points: np.ndarray, sample: Any, table: ClassTable) -> np.ndarray:
        """Prediction above ground truth, (H', W', 3) uint8; arguments as of ``write_scene``."""
        prediction = predicted_labels(sample.pred_pts_seg, self.score_thr)
        truth = annotated_labels(getattr(sample, 'eval_ann_info', None))
        xyz, rgb = points[:, :3], points[:, 3:6].astype(np.uint8)
        return segmentation_figure(
            xyz, rgb, prediction, table.classes, table.palette, truth, self.size
        )

    def write_scene(self, name: str, points: np.ndarray, sample: Any, table: ClassTable) -> None:
        """Write one scene.

        Args:
            name: stem of the file names.
            points: (N, 6) xyz in metres, rgb 0–255.
            sample: Det3DDataSample with ``pred_pts_seg`` and perhaps ``eval_ann_info``.
            table: names and colours of the classes.
        """
        if self.out_dir is None:
            raise ValueError('SegVisualizationHook: has no out_dir to write to')
        image = self.draw_scene(points, sample, table)
        prediction = predicted_labels(sample.pred_pts_seg, self.score_thr)
        truth = annotated_labels(getattr(sample, 'eval_ann_info', None))

        labels = {
            'semantic': prediction.semantic,
            'instance': prediction.instance,
            'panoptic': prediction.panoptic,
        }
        if truth is not None:
            labels |= {'gt_semantic': truth.semantic, 'gt_instance': truth.instance}
        labels = {key: values for key, values in labels.items() if values is not None}

        colors = points[:, 3:6].astype(np.uint8)
        if prediction.semantic is not None:
            colors = class_colors(prediction.semantic, table.palette)
        write_ply(self.out_dir / f'{name}.ply', points[:, :3], colors, labels)
        write_png(self.out_dir / f'{name}.png', image)


def _scenes(
    batch_idx: int, data_batch: dict[str, Any] | None, outputs: Sequence[Any] | None
) -> Iterator[tuple[str, np.ndarray, Any]]:
    """Name, points (N, 6) and prediction of each scene of a batch."""
    if data_batch is None or outputs is None:
        return
    # of several views of test-time augmentation the first is the scene as it is
    inputs = data_batch['inputs']
    inputs = inputs[0] if isinstance(inputs, list) else inputs
    for index, (points, sample) in enumerate(zip(inputs['points'], outputs)):
        name = _scene_name(sample.metainfo, f'batch{batch_idx:05d}_{index}')
        yield name, _original_points(sample.metainfo, to_array(points)), sample


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
