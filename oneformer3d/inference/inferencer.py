"""A scan in, labelled points out; no ground truth is needed.

    scan → points (N) → thinned to the model's spacing (M) → superpoints → tiles → model
         → one result for M → scattered to N

A fused model also looks at the images of a folder, if it is told which CLIP its features are of;
without images it segments the points alone.

Enters: a point-cloud file, an array (N, 3) or (N, 6), or a folder of posed RGB-D frames. Leaves:
a ``Segmentation``. N points, M points the
network sees, K instances.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope

from oneformer3d.data.class_tables import ClassTable, get_class_table
from oneformer3d.data.clouds.as_scan import Scan, log_warnings
from oneformer3d.data.scan import read_scan
from oneformer3d.data.superpoints import superpoints_from_points
from oneformer3d.data.thinning import thin_scan
from oneformer3d.data.upright import rotation_to_z_up, up_from_axis
from oneformer3d.engine.class_sizes import check_class_sizes
from oneformer3d.engine.configs import load_config
from oneformer3d.fusion.encoder import BiFusionEncoder
from oneformer3d.registry import MODELS, TRANSFORMS
from oneformer3d.segmentor.weights import load_checkpoint
from oneformer3d.structures import ModelInfo, Segmentation, SegmentationInfo
from oneformer3d.structures.instances import make_instance
from oneformer3d.visualization.labels import to_array

from .components import instances_from_components
from .predictions import ScanPrediction, TilePrediction, drop_covered, scatter_to_points
from .scan_images import ScanImageReader, ScanImages
from .tiling import Tile, merge_predictions, split_tiles

# Steps of a test pipeline that read from disk or leave points out: the inferencer has the points
# already, and wants a label for each.
_DATASET_STEPS = ('LoadScenePoints', 'LoadSceneAnnotations', 'SamplePoints', 'LoadPosedViews')

Progress = Callable[[str, int, int], None]


class OneFormer3DInferencer:
    """Segments scans with a trained model.

    Args:
        config: the config the model was trained with, or its path. Its test pipeline normalises
            the colours, its test dataset names the class table.
        checkpoint: the trained weights.
        device: 'cpu', 'cuda', …; None takes a GPU where there is one.
        score_thr: instances with a lower score are left out.
        voxel_size: clouds are thinned to one point per cube of this edge in metres before the
            network sees them, and every point takes its cube's labels. None takes the model's
            voxel size, 0 thins nothing.
        max_points: thinned scenes with more points are segmented in overlapping tiles of at most
            so many; this bounds the memory.
        tile_margin: context around a tile in metres.
        clip: for a model with image features, settings of ``ClipEncoder`` (``weights`` and what
            else the features it was trained with were made with); None looks at no images.
        max_views: of a folder, evenly spread over its frames.
        component_radius: instances are the connected components of each thing class, points at
            most so far apart in metres, instead of the network's masks, whatever
            ``score_thr``. 0 takes the masks.

    Raises:
        FileNotFoundError: No such config, checkpoint or CLIP weights.
        ValueError: The checkpoint belongs to another model, or the config to no segmentor; CLIP
            for a model without image features, or another CLIP than the model's; a negative
            radius.
    """

    def __init__(
        self,
        config: Config | str | Path,
        checkpoint: str | Path,
        device: str | None = None,
        *,
        score_thr: float = 0.3,
        voxel_size: float | None = None,
        max_points: int = 150_000,
        tile_margin: float = 1.0,
        clip: Mapping[str, Any] | None = None,
        max_views: int = 64,
        component_radius: float = 0.0,
    ) -> None:
        if component_radius < 0:
            raise ValueError(f'component_radius must be ≥ 0, got {component_radius}')
        self.config = config if isinstance(config, Config) else load_config(config)
        self.config_name = str(self.config.filename or 'config')
        self.checkpoint_name = str(checkpoint)

        self.class_table, pipeline = _test_settings(self.config, self.config_name)
        check_class_sizes(self.config)
        self.device = _device(device)
        init_default_scope(self.config.get('default_scope', 'mmdet3d'))
        self.pipeline = [TRANSFORMS.build(step) for step in pipeline]

        self.model = MODELS.build(self.config.model).eval()
        load_checkpoint(self.model, checkpoint)
        self.model.to(self.device)
        # a segmentor of one's own need not state the number in its settings
        if self.model.num_semantic_classes != self.class_table.num_classes:
            raise ValueError(
                f'{self.config_name}: the model has {self.model.num_semantic_classes} classes, '
                f'class table {self.class_table.name!r} has {self.class_table.num_classes}'
            )

        self.score_thr = score_thr
        self.voxel_size = model_voxel_size(self.config.model) if voxel_size is None else voxel_size
        self.max_points = max_points
        self.tile_margin = tile_margin
        self.component_radius = component_radius
        self.read_images = None if clip is None else self._image_reader(clip, max_views)

    def __call__(
        self,
        source: str | Path | np.ndarray | Scan,
        up: str | None = None,
        progress: Progress | None = None,
    ) -> Segmentation:
        """Segment one scan.

        Args:
            source: whatever ``read_scan`` takes, or what it returned. What it had to assume is
                logged in the first case.
            up: the axis of the scan that points up: x, y, z, -x, -y or -z; the network was
                trained with z up. None takes what ``read_scan`` finds.
            progress: called with the name of a step, how much of it is done, and of how much.

        Returns:
            The scan in its own coordinates with its labels.

        Raises:
            FileNotFoundError, ValueError: The scan is missing or broken; names it.
        """
        clock = _Clock(progress)

        # the network knows z as up
        if isinstance(source, Scan):
            scan = source if up is None else replace(source, up=up_from_axis(up))
        else:
            clock.start('read')
            scan = log_warnings(read_scan(source, up=up))
        points = scan.require_points()
        rotation = rotation_to_z_up(scan.up)
        upright = points[:, :3] @ rotation.T.astype(np.float32)  # (N, 3)
        cloud = np.concatenate([upright, points[:, 3:]], axis=1)  # (N, 6)

        clock.start('thin')
        thinned = thin_scan(cloud, self.voxel_size)

        clock.start('superpoints')
        superpoints = self._superpoints(thinned.points)
        tiles = split_tiles(thinned.points, self.max_points, self.tile_margin)

        images = None
        if self.read_images is not None and scan.recording is not None:
            clock.start('images')
            images = self.read_images(scan.recording)

        clock.start('network', len(tiles))
        predictions = []
        for tile in tiles:
            predictions.append(
                self._segment_tile(thinned.points, superpoints, tile, rotation, images)
            )
            clock.report(len(predictions))

        clock.start('merge')
        found = merge_predictions(tiles, predictions, len(thinned.points), self.class_table.stuff)
        if self.component_radius > 0:
            found = instances_from_components(
                found, thinned.points, self.class_table.stuff, self.component_radius
            )
        shown = drop_covered(found)
        upright_from_scan = rotation.astype(np.float32)
        segmentation = self._segmentation(
            scatter_to_points(shown, thinned), points, upright_from_scan
        )
        clock.stop()

        info = SegmentationInfo(
            source=scan.path,
            num_isolated=thinned.num_isolated,
            num_points_network=len(thinned.points),
            num_superpoints=0 if superpoints is None else int(superpoints.max()) + 1,
            num_tiles=len(tiles),
            num_covered=len(found.members) - len(shown.members),
            voxel_size=self.voxel_size,
            score_thr=self.score_thr,
            seconds=clock.seconds,
            model=self.model_info,
        )
        return replace(
            segmentation,
            info=info,
            views=() if images is None else images.frames,
            warnings=scan.warnings,
            origin=scan.origin,
        )

    @property
    def model_info(self) -> ModelInfo:
        """What segments."""
        return ModelInfo(
            config=self.config_name,
            checkpoint=self.checkpoint_name,
            type=self.config.model.type,
            num_parameters=sum(p.numel() for p in self.model.parameters()),
            class_table=self.class_table.name,
            device=str(self.device),
        )

    def _segmentation(
        self, prediction: ScanPrediction, points: np.ndarray, upright_from_scan: np.ndarray
    ) -> Segmentation:
        """The prediction for points (N, 6) with the names of its classes and its boxes."""
        table = self.class_table
        upright = points[:, :3] @ upright_from_scan.T

        instances = [
            make_instance(table.classes[label], int(label), float(score), members, upright)
            for members, label, score in zip(
                prediction.members, prediction.classes, prediction.scores
            )
        ]
        return Segmentation(
            points,
            prediction.semantic,
            prediction.panoptic,
            prediction.panoptic_semantic,
            tuple(instances),
            table.classes,
            table.raw_ids,
            table.palette,
            upright_from_scan,
        )

    def _superpoints(self, points: np.ndarray) -> np.ndarray | None:
        if not self.model.use_superpoints:
            return None
        return superpoints_from_points(points[:, :3], points[:, 3:])

    def _image_reader(self, clip: Mapping[str, Any], max_views: int) -> ScanImageReader:
        encoder = getattr(self.model, 'encoder', None)
        if not isinstance(encoder, BiFusionEncoder):
            raise ValueError(f'{self.config_name}: the model reads no image features')
        return ScanImageReader(clip, encoder.clip_channels, max_views=max_views, device=self.device)

    def _segment_tile(
        self,
        points: np.ndarray,
        superpoints: np.ndarray | None,
        tile: Tile,
        rotation: np.ndarray,
        images: ScanImages | None,
    ) -> TilePrediction:
        """The model's prediction for a tile's points, of instances the well-scored ones only."""
        upright_from_scan = np.eye(4)
        upright_from_scan[:3, :3] = rotation
        scene: dict[str, Any] = {
            'points': points[tile.members],
            'augmented_from_original': upright_from_scan,
            'test_mode': False,
        }
        if images is not None:
            scene['views'] = images.views(points[tile.members, :3] @ rotation)
        if superpoints is not None:
            _, scene['sp_pts_mask'] = np.unique(superpoints[tile.members], return_inverse=True)

        for transform in self.pipeline:
            scene = transform(scene)
        if len(scene['inputs']['points']) != len(tile.members):
            raise ValueError(
                f'{self.config_name}: the test pipeline makes {len(scene["inputs"]["points"])} '
                f'points of {len(tile.members)}; it may not add or drop points'
            )

        predicted = self.model.test_step(pseudo_collate([scene]))[0].pred_pts_seg
        scores = to_array(predicted.instance_scores)
        keep = scores >= self.score_thr
        masks, panoptic = (to_array(mask) for mask in predicted.pts_instance_mask)
        semantic, panoptic_semantic = (to_array(mask) for mask in predicted.pts_semantic_mask)
        class_of = np.asarray(self.model.instance_classes)

        return TilePrediction(
            semantic,
            panoptic_semantic,
            panoptic,
            masks[keep].astype(bool),
            class_of[to_array(predicted.instance_labels)[keep]],
            scores[keep],
        )


def _test_settings(config: Config, name: str) -> tuple[ClassTable, list[dict]]:
    """Class table of the test dataset, and its pipeline without what reads the dataset's files.

    Raises:
        ValueError: The config lacks a model, or a test dataset with class table and pipeline.
    """
    dataset = config.get('test_dataloader', {}).get('dataset', {})
    if 'model' not in config or 'class_table' not in dataset or 'pipeline' not in dataset:
        raise ValueError(
            f'{name}: expected a model and a test_dataloader whose dataset has a class_table and '
            'a pipeline'
        )
    steps = [step for step in dataset['pipeline'] if step['type'] not in _DATASET_STEPS]
    return get_class_table(dataset['class_table']), steps


def model_voxel_size(model: Mapping) -> float:
    """Edge in metres of the voxels of a model, or of the encoders within it; 0 if it has none."""
    if 'voxel_size' in model:
        return model['voxel_size']
    inner = [model[name] for name in ('encoder', 'encoder_3d') if name in model]
    return max(map(model_voxel_size, inner), default=0.0)


def _device(name: str | None) -> torch.device:
    """The device of that name; without a name a GPU where there is one, else the CPU."""
    try:
        device = torch.device(name or ('cuda' if torch.cuda.is_available() else 'cpu'))
    except RuntimeError as error:
        raise ValueError(f'device: expected cpu, cuda or cuda:N, got {name!r}') from error
    if device.type == 'cuda' and not torch.cuda.is_available():
        raise ValueError(f'device: {name} was asked for, but no CUDA device is available')
    return device


class _Clock:
    """Seconds of each step; calls whoever shows the progress."""

    def __init__(self, progress: Progress | None) -> None:
        self.seconds: dict[str, float] = {}
        self._progress = progress
        self._step: str | None = None
        self._total = 1
        self._began = 0.0

    def start(self, step: str, total: int = 1) -> None:
        """End the step before and begin one of ``total`` parts."""
        self.stop()
        self._step, self._total, self._began = step, total, time.perf_counter()
        self.report(0)

    def report(self, done: int) -> None:
        """Report that so many parts are done."""
        if self._progress is not None and self._step is not None:
            self._progress(self._step, done, self._total)

    def stop(self) -> None:
        """End the step."""
        if self._step is not None:
            self.report(self._total)
            self.seconds[self._step] = round(time.perf_counter() - self._began, 3)
            self._step = None
