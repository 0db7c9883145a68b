"""A scan in, labelled points out; no ground truth is needed.

    scan → points (N) → thinned to the model's spacing (M) → superpoints → tiles → model
         → one result for M → scattered to N

A fused model also looks at the images of a folder, if it is told which CLIP its features are of;
without images it segments the points alone.

Enters: a point-cloud file, an array (N, 3) or (N, 6), or a folder of posed RGB-D frames. Leaves:
a ``Segmentation``. N points, M points the
network sees, K instances.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, overload

import numpy as np
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.model import BaseModel
from mmengine.registry import init_default_scope

from oneformer3d.data.clouds.as_scan import Scan, log_warnings
from oneformer3d.data.scan import read_scan
from oneformer3d.data.superpoints import superpoints_from_points
from oneformer3d.data.thinning import thin_scan
from oneformer3d.data.upright import rotation_to_z_up, up_from_axis
from oneformer3d.engine.class_sizes import check_class_sizes
from oneformer3d.engine.configs import load_config
from oneformer3d.engine.tta import with_tta
from oneformer3d.files.shipped import CHECKPOINT, CONFIG, find_checkpoint
from oneformer3d.fusion.encoder import BiFusionEncoder
from oneformer3d.registry import MODELS, TRANSFORMS
from oneformer3d.segmentor.weights import load_checkpoint
from oneformer3d.structures import ModelInfo, Segmentation, SegmentationInfo
from oneformer3d.structures.instances import make_instance
from oneformer3d.visualization.labels import to_array

from .clock import Clock, Progress
from .components import InstanceSource, with_instances
from .model_settings import inference_settings, model_voxel_size, pick_device, test_settings
from .predictions import ScanPrediction, TilePrediction, drop_covered, scatter_to_points
from .scan_images import ScanImageReader, ScanImages
from .scans import is_finished, name_scans, result_key
from .scene_index import text_image_reader
from .tiling import Tile, merge_predictions, split_tiles
from .vocabulary import TextNamer, Vocabulary

ScanSource = str | Path | np.ndarray | Scan | Mapping[str, np.ndarray]


class OneFormer3DInferencer:
    """Segments scans with a trained model.

    Args:
        config: the config the model was trained with, or its path. Its test pipeline normalises
            the colours, its test dataset names the class table.
        checkpoint: the trained weights. Both default to the model that comes with the package,
            of points alone (docs/real_scans.md says what it is worth).
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
        vocabulary: words that name the masks instead of the trained classes, compared with the
            images of a scan by ``clip`` (any model will do then); words that are trained classes
            may come from the trained head, so ``[*classes, 'a piano']`` adds one.
        instances: 'masks' of the network, 'components': connected pieces of what is no stuff, or
            'joined': both; see ``components``. None takes what the config says (``inference``),
            or else the masks. ``score_thr`` is for masks alone.
        component_radius: points at most so far apart belong to one piece, metres.
        tta: average over mirrored and turned views of each scan, as the config's ``tta_model`` and
            ``tta_pipeline`` say, for several times the time of the network (docs/inference.md).
            None takes what the config says (``inference``), or else the scan as it is.

    Raises:
        FileNotFoundError: No such config, checkpoint or CLIP weights.
        ValueError: The checkpoint belongs to another model, or the config to no segmentor; CLIP
            for a model without image features, or another CLIP than the model's; a negative
            radius; ``tta`` without these settings.
    """

    def __init__(
        self,
        config: Config | str | Path = CONFIG,
        checkpoint: str | Path = CHECKPOINT,
        device: str | None = None,
        *,
        score_thr: float = 0.3,
        voxel_size: float | None = None,
        max_points: int = 150_000,
        tile_margin: float = 1.0,
        clip: Mapping[str, Any] | None = None,
        max_views: int = 64,
        vocabulary: Vocabulary | Sequence[str] | None = None,
        instances: InstanceSource | None = None,
        component_radius: float = 0.06,
        tta: bool | None = None,
    ) -> None:
        if component_radius <= 0:
            raise ValueError(f'component_radius must be positive, got {component_radius}')
        self.config = config if isinstance(config, Config) else load_config(config)
        self.config_name = str(self.config.filename or 'config')
        checkpoint = find_checkpoint(checkpoint)
        self.checkpoint_name = str(checkpoint)

        chosen = inference_settings(self.config, self.config_name, instances, tta)
        self.instances: InstanceSource = chosen.instances
        self.tta = chosen.tta
        tested = with_tta(self.config) if self.tta else self.config
        self.class_table, pipeline = test_settings(tested, self.config_name)
        check_class_sizes(self.config)
        self.device = pick_device(device)
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

        # what is asked for predictions: the model, or what shows it several views
        self.predictor: BaseModel = self.model
        if self.tta:
            self.predictor = MODELS.build({**self.config.tta_model, 'module': self.model})

        self.score_thr = score_thr
        self.voxel_size = model_voxel_size(self.config.model) if voxel_size is None else voxel_size
        self.max_points = max_points
        self.tile_margin = tile_margin
        self.component_radius = component_radius
        self.images = None if clip is None else {**clip, 'max_views': max_views}
        self.read_images = None if clip is None else self._image_reader(clip, max_views, vocabulary)
        self.namer = None if vocabulary is None else self._namer(vocabulary, clip, max_views)

    @overload
    def __call__(
        self,
        source: ScanSource,
        up: str | None = None,
        progress: Progress | None = None,
        out_dir: str | Path | None = None,
    ) -> Segmentation: ...

    @overload
    def __call__(
        self,
        source: list[ScanSource] | tuple[ScanSource, ...],
        up: str | None = None,
        progress: Progress | None = None,
        out_dir: str | Path | None = None,
    ) -> list[Segmentation]: ...

    def __call__(
        self,
        source: ScanSource | list[ScanSource] | tuple[ScanSource, ...],
        up: str | None = None,
        progress: Progress | None = None,
        out_dir: str | Path | None = None,
    ) -> Segmentation | list[Segmentation]:
        """Segment a scan, or several.

        Args:
            source: whatever ``read_scan`` takes, or what it returned; ``dict(points=array)`` as in
                mmdet3d; a list of any of these. What had to be assumed is logged, unless the scan
                was read already.
            up: the axis of the scan that points up: x, y, z, -x, -y or -z; the network was
                trained with z up. None takes what ``read_scan`` finds.
            progress: called with the name of a step, how much of it is done, and of how much.
            out_dir: folder of the result, of several scans of a folder each (``name_scans``;
                arrays are ``scan_0000`` and so on). A file or folder whose result is there
                already, made from the same with the same weights and settings, is read back.

        Returns:
            The scan in its own coordinates with its labels; a list of them for a list.

        Raises:
            FileNotFoundError, ValueError: The scan is missing or broken; names it.
        """
        if not isinstance(source, list | tuple):
            return self._segment(source, up, progress, None if out_dir is None else Path(out_dir))
        outs = [None] * len(source) if out_dir is None else _folders(source, Path(out_dir))
        return [self._segment(one, up, progress, out) for one, out in zip(source, outs)]

    def key(self, source: str | Path, **reading: object) -> str:
        """Of a result's scan, weights and settings; see ``result_key``.

        Args:
            source: the scan.
            reading: what it is read with.
        """
        settings = {
            'config': self.config.to_dict(),
            'score_thr': self.score_thr,
            'voxel_size': self.voxel_size,
            'max_points': self.max_points,
            'tile_margin': self.tile_margin,
            'instances': self.instances,
            'component_radius': self.component_radius,
            'images': self.images,
            'tta': self.tta,
            'vocabulary': None if self.namer is None else vars(self.namer.vocabulary),
        }
        return result_key(source, self.checkpoint_name, {**settings, **reading})

    def _segment(
        self,
        source: ScanSource,
        up: str | None,
        progress: Progress | None,
        out: Path | None,
    ) -> Segmentation:
        """One scan, read back where its result is there."""
        if out is None:
            return self.segment(source, up, progress)
        key = self.key(source, up=up) if isinstance(source, str | Path) else ''
        if key and is_finished(out, key):
            return Segmentation.load(out)

        result = self.segment(source, up, progress)
        result = replace(result, info=replace(result.info, key=key))
        result.save(out)
        return result

    def segment(
        self, source: ScanSource, up: str | None = None, progress: Progress | None = None
    ) -> Segmentation:
        """Segment one scan and write nothing; see ``__call__``."""
        clock = Clock(progress)

        # the network knows z as up
        if isinstance(source, Scan):
            scan = source if up is None else replace(source, up=up_from_axis(up))
        else:
            clock.start('read')
            points = source['points'] if isinstance(source, Mapping) else source
            scan = log_warnings(read_scan(points, up=up))
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
        found = with_instances(
            found, thinned.points, self.class_table.stuff, self.instances, self.component_radius
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
            instance_source=self.instances,
            seconds=clock.seconds,
            model=self.model_info,
        )
        segmentation = replace(
            segmentation,
            info=info,
            views=() if images is None else images.frames,
            warnings=scan.warnings,
            origin=scan.origin,
        )
        if self.namer is None:
            return segmentation
        return self.namer(segmentation, scan.recording, progress)

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

    def _image_reader(
        self,
        clip: Mapping[str, Any],
        max_views: int,
        vocabulary: Vocabulary | Sequence[str] | None,
    ) -> ScanImageReader | None:
        encoder = getattr(self.model, 'encoder', None)
        if isinstance(encoder, BiFusionEncoder):
            channels = encoder.clip_channels
            return ScanImageReader(clip, channels, max_views=max_views, device=self.device)
        if vocabulary is None:
            raise ValueError(f'{self.config_name}: the model reads no image features')
        return None  # CLIP is there for the words alone

    def _namer(
        self, vocabulary: Vocabulary | Sequence[str], clip: Mapping[str, Any] | None, max_views: int
    ) -> TextNamer:
        if clip is None:
            raise ValueError('vocabulary: words are compared with images by clip, which is missing')
        if not isinstance(vocabulary, Vocabulary):
            vocabulary = Vocabulary(tuple(vocabulary))
        reader = text_image_reader(clip['weights'], clip.get('model'), max_views, str(self.device))
        return TextNamer(vocabulary, reader)

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
        views = scene['inputs'] if self.tta else [scene['inputs']]
        for view in views:
            if len(view['points']) != len(tile.members):
                raise ValueError(
                    f'{self.config_name}: the test pipeline makes {len(view["points"])} points of '
                    f'{len(tile.members)}; it may not add or drop points'
                )

        predicted = self.predictor.test_step(pseudo_collate([scene]))[0].pred_pts_seg
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


def _folders(sources: Sequence[ScanSource], out: Path) -> list[Path]:
    """A folder for each scan: named after files and folders, numbered for arrays."""
    paths = [Path(source) for source in sources if isinstance(source, str | Path)]
    names = iter(name_scans(paths))
    return [
        out / (next(names) if isinstance(source, str | Path) else f'scan_{number:04d}')
        for number, source in enumerate(sources)
    ]
