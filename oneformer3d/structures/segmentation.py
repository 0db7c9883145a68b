"""A segmented scan: labels of its points, its objects, and the files they become.

Enters: what a network said about a scan. Leaves: ``Segmentation``, a record that writes itself:

- ``segmentation.ply``: the scan coloured by class; properties semantic, instance, panoptic
- ``instances.ply``: the same coloured by instance; ``instances.json``: see ``to_json``
- ``predictions.npz``: see ``arrays``
- ``segmentation.png``: input | semantic | instances from an oblique view, ``top.png`` from above
- ``summary.json``: counts, instances with class, score, size and box, times, model; written last

On request ``scene.glb``, ``scan.las``, ``scannet/`` and ``instances/``. N points, K instances, C
classes.
"""

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oneformer3d.files.atomic import atomic_path, atomic_write_bytes
from oneformer3d.files.glb import write_glb
from oneformer3d.files.images import write_png
from oneformer3d.files.las import write_las
from oneformer3d.files.plain import Json
from oneformer3d.files.ply import write_ply
from oneformer3d.version import __version__
from oneformer3d.visualization.figure import segmentation_figure
from oneformer3d.visualization.labels import PointLabels
from oneformer3d.visualization.palette import class_colors, instance_colors

from .exports import (
    box_json,
    coco_instances,
    rounded,
    write_instance_clouds,
    write_submission,
)
from .instances import Instance, instance_map, make_instance

# written always, the summary after all others; and what is written on request
FILES = (
    'segmentation.ply',
    'instances.ply',
    'instances.json',
    'predictions.npz',
    'segmentation.png',
    'top.png',
    'summary.json',
)
EXTRA_FILES = {
    'glb': 'scene.glb',
    'las': 'scan.las',
    'scannet': 'scannet',
    'instances': 'instances',
}


@dataclass(frozen=True)
class ModelInfo:
    """What segmented: config and checkpoint as they were named, and what they hold."""

    config: str = ''
    checkpoint: str = ''
    type: str = ''
    num_parameters: int = 0
    class_table: str = ''
    device: str = ''


@dataclass(frozen=True)
class SegmentationInfo:
    """How a scan was segmented.

    Attributes:
        source: the scan's path, '' for an array.
        num_isolated: points that belong to no surface; the nearest others gave them their labels.
        num_points_network: points after thinning, which the network saw.
        num_superpoints, num_tiles: what these were cut into.
        num_covered: instances left out because better ones hold all of their points.
        voxel_size: metres, edge of the cubes of thinning.
        score_thr: least score of an instance.
        instance_source: 'masks', 'components' or 'joined', what instances are made of.
        seconds: of each step.
        model: what segmented.
        key: of scan, weights and settings; '' where nobody asked.
    """

    source: str = ''
    num_isolated: int = 0
    num_points_network: int = 0
    num_superpoints: int = 0
    num_tiles: int = 1
    num_covered: int = 0
    voxel_size: float = 0.0
    score_thr: float = 0.0
    instance_source: str = 'masks'
    seconds: Mapping[str, float] = field(default_factory=dict)
    model: ModelInfo = ModelInfo()
    key: str = ''


@dataclass(frozen=True, eq=False)
class Segmentation:
    """A segmented scan.

    Attributes:
        points: (N, 6) float32 xyz in metres, rgb 0–255; ``xyz + origin`` are the scan's own
            coordinates.
        semantic: (N,) int64 class 0…C−1; C where labels that were corrected by hand leave none.
        panoptic: (N,) int64 segment: the class for stuff, above the last stuff class for things,
            −1 for none (models without stuff classes).
        panoptic_semantic: (N,) int64 class of that segment.
        instances: K by descending score; masks may overlap, and each has a point that no better
            one has.
        class_names: C names.
        class_ids: C ids of the dataset.
        palette: (C, 3) uint8.
        upright_from_scan: (3, 3) float32 rotation of the scan that puts z up.
        info: how it was made.
        views: names of the images that the network saw.
        warnings: what was doubtful about the scan.
        origin: (3,) float64 metres that were subtracted from its coordinates.
    """

    points: NDArray[np.float32]
    semantic: NDArray[np.int64]
    panoptic: NDArray[np.int64]
    panoptic_semantic: NDArray[np.int64]
    instances: tuple[Instance, ...]
    class_names: tuple[str, ...]
    class_ids: tuple[int, ...]
    palette: NDArray[np.uint8]
    upright_from_scan: NDArray[np.float32]
    info: SegmentationInfo = SegmentationInfo()
    views: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    origin: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))

    @classmethod
    def load(cls, out_dir: str | Path) -> 'Segmentation':
        """Read back what ``save`` wrote.

        Raises:
            FileNotFoundError: there is no complete result.
            ValueError: a file of it is broken.
        """
        summary, arrays = _read_result(Path(out_dir))
        points, upright_from_scan = arrays['points'], arrays['upright_from_scan']
        names = tuple(arrays['class_names'].tolist())
        upright = points[:, :3] @ upright_from_scan.T

        instances = []
        for packed, label, score in zip(
            arrays['instance_masks'], arrays['instance_classes'], arrays['instance_scores']
        ):
            members = np.flatnonzero(np.unpackbits(packed, count=len(points)))
            name = names[int(label)]
            instances.append(make_instance(name, int(label), float(score), members, upright))

        known = {one.name for one in fields(SegmentationInfo)}
        settings = {key: value for key, value in summary.items() if key in known}
        settings |= {'source': summary['input'], 'model': ModelInfo(**summary['model'])}
        return cls(
            points,
            semantic=arrays['semantic'].astype(np.int64),
            panoptic=arrays['panoptic'].astype(np.int64),
            panoptic_semantic=arrays['panoptic_semantic'].astype(np.int64),
            instances=tuple(instances),
            class_names=names,
            class_ids=tuple(arrays['class_ids'].tolist()),
            palette=arrays['palette'],
            upright_from_scan=upright_from_scan,
            info=SegmentationInfo(**settings),
            views=tuple(summary['views']),
            warnings=tuple(summary['warnings']),
            origin=arrays['origin'],
        )

    @property
    def upright(self) -> NDArray[np.float32]:
        """(N, 3) float32 the points with z up."""
        return self.points[:, :3] @ self.upright_from_scan.T

    @property
    def up(self) -> NDArray[np.float32]:
        """(3,) float32 the direction of the scan that points up."""
        return self.upright_from_scan[2]

    @cached_property
    def instance(self) -> NDArray[np.int64]:
        """(N,) int64 row of the best-scored instance that has the point, -1 none."""
        return instance_map(self.instances, len(self.points))

    @property
    def rgb(self) -> NDArray[np.uint8]:
        """(N, 3) uint8 colours of the scan."""
        return self.points[:, 3:].astype(np.uint8)

    def save(
        self,
        out_dir: str | Path,
        extras: Sequence[str] = (),
        size: tuple[int, int] = (480, 640),
    ) -> None:
        """Write all files; each appears whole or not at all, the summary after all others.

        Args:
            out_dir: folder, made if missing.
            extras: which of ``EXTRA_FILES`` to write as well.
            size: (H, W) of each panel of the pictures.

        Raises:
            ValueError: an unknown extra.
            ImportError: ``las`` without laspy.
        """
        unknown = [extra for extra in extras if extra not in EXTRA_FILES]
        if unknown:
            raise ValueError(f'extras: expected some of {[*EXTRA_FILES]}, got {unknown}')

        # A summary vouches for the other files: an old one must not vouch for new ones.
        out_dir = Path(out_dir)
        out_dir.mkdir(parents=True, exist_ok=True)
        (out_dir / 'summary.json').unlink(missing_ok=True)

        self.to_ply(out_dir / 'segmentation.ply')
        self.to_ply(out_dir / 'instances.ply', color_by='instance')
        self.to_json(out_dir / 'instances.json')
        with atomic_path(out_dir / 'predictions.npz') as temporary:
            np.savez_compressed(temporary, allow_pickle=False, **self.arrays())
        for name, camera in (('segmentation.png', 'dollhouse'), ('top.png', 'top')):
            write_png(out_dir / name, self.picture(camera, size))

        for extra in extras:
            self._save_extra(extra, out_dir / EXTRA_FILES[extra])
        files = [*FILES, *(EXTRA_FILES[extra] for extra in extras)]
        _write_json(out_dir / 'summary.json', {**self.summary(), 'files': list(files)})

    def to_ply(self, path: str | Path, color_by: str = 'semantic') -> None:
        """Write the scan with its labels as properties semantic, instance and panoptic.

        Args:
            path: the file.
            color_by: 'semantic', 'instance' or 'rgb', the scan's own colours.

        Raises:
            ValueError: it cannot be coloured so.
        """
        labels = {
            'semantic': self.semantic,
            'instance': self.instance,
            'panoptic': self.panoptic,
        }
        write_ply(path, self.points[:, :3], self._colors(color_by), labels)

    def to_glb(self, path: str | Path) -> None:
        """Write the upright scan: a node per instance, such as ``3 chair``, and one for the rest.

        Instances have colours of their own, the rest those of its classes; no point is there twice.
        """
        points, colors = self.upright, instance_colors(self.instance)
        rest = self.instance < 0
        parts = {'scan': (points[rest], class_colors(self.semantic, self.palette)[rest])}

        for row, instance in enumerate(self.instances):
            mine = self.instance == row
            parts[f'{row} {instance.name}'] = points[mine], colors[mine]
        write_glb(path, parts)

    def to_json(self, path: str | Path) -> None:
        """Write the number of points, rotation and origin, and ``exports.coco_instances``."""
        rotation: list[Json] = [rounded(row, 6) for row in self.upright_from_scan]
        header: dict[str, Json] = {
            'num_points': len(self.points),
            'upright_from_scan': rotation,
            'origin': self.origin.tolist(),
        }
        content = coco_instances(
            self.instances, self.class_names, self.class_ids, self.upright_from_scan
        )
        _write_json(Path(path), {**header, **content})

    def to_scannet(self, folder: str | Path, scene: str) -> None:
        """Write what the ScanNet benchmark asks for, see ``exports.write_submission``."""
        write_submission(folder, scene, self.instances, self.semantic, self.class_ids)

    def to_las(self, path: str | Path) -> None:
        """Write LAS in the scan's own coordinates.

        ``classification`` is the class 0…C−1, extra dimensions are the instances.

        Raises:
            ImportError: laspy is not installed.
        """
        labels = {'instance': self.instance, 'panoptic': self.panoptic}
        world = self.points[:, :3].astype(np.float64) + self.origin
        write_las(path, world, self.rgb, self.semantic, labels)

    def picture(
        self, camera: str = 'dollhouse', size: tuple[int, int] = (480, 640)
    ) -> NDArray[np.uint8]:
        """Input | semantic | instances | panoptic as one image (H', W', 3) uint8.

        Args:
            camera: 'dollhouse' or 'top'.
            size: (H, W) of each panel.
        """
        labels = PointLabels(self.semantic, self.instance, self.panoptic)
        return segmentation_figure(
            self.upright, self.rgb, labels, self.class_names, self.palette, size=size, camera=camera
        )

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """What ``predictions.npz`` holds; it loads with ``allow_pickle=False``.

        Returns:
            - ``points`` (N, 6) float32 xyz in metres and rgb 0–255, in the input's order (points
              that were not finite are missing)
            - ``semantic``, ``panoptic_semantic`` (N,) int16 class
            - ``panoptic``, ``instance`` (N,) int32 segment id, and row of the instance or -1
            - ``instance_masks`` (K, ceil(N / 8)) uint8, bits:
              ``np.unpackbits(instance_masks, axis=1, count=N).astype(bool)``
            - ``instance_classes`` (K,) int64, ``instance_scores`` (K,) float32
            - ``class_names`` (C,) str, ``class_ids`` (C,) int64, ``palette`` (C, 3) uint8
            - ``upright_from_scan`` (3, 3) float32, ``origin`` (3,) float64 metres
        """
        # one bit a point: K full masks would be eight times as large
        packed = [np.packbits(instance.mask) for instance in self.instances]
        width = (len(self.points) + 7) // 8

        return {
            'points': self.points,
            'semantic': self.semantic.astype(np.int16),
            'panoptic_semantic': self.panoptic_semantic.astype(np.int16),
            'panoptic': self.panoptic.astype(np.int32),
            'instance': self.instance.astype(np.int32),
            'instance_masks': np.array(packed, dtype=np.uint8).reshape(-1, width),
            'instance_classes': np.array([i.label for i in self.instances], dtype=np.int64),
            'instance_scores': np.array([i.score for i in self.instances], dtype=np.float32),
            'class_names': np.array(self.class_names),
            'class_ids': np.array(self.class_ids, dtype=np.int64),
            'palette': self.palette,
            'upright_from_scan': self.upright_from_scan,
            'origin': self.origin,
        }

    def summary(self) -> dict[str, Json]:
        """Counts and instances as plain JSON values; lengths in metres, times in seconds."""
        counts = np.bincount(self.semantic, minlength=len(self.class_names))
        counts = counts[: len(self.class_names)]  # corrected labels may leave points without one
        frequent = [int(k) for k in np.argsort(-counts, kind='stable') if counts[k]]

        instances: list[Json] = [
            {
                'id': row,
                'class': instance.name,
                'score': round(instance.score, 4),
                'num_points': instance.num_points,
                'box': box_json(instance.box),
            }
            for row, instance in enumerate(self.instances)
        ]
        info = asdict(self.info)
        return {
            'input': info.pop('source'),
            'up': rounded(self.up, 4),
            'origin': self.origin.tolist(),
            'num_points': len(self.points),
            'num_views': len(self.views),
            'points_per_class': {self.class_names[k]: int(counts[k]) for k in frequent},
            'num_instances': len(instances),
            'instances': instances,
            'views': list(self.views),
            'warnings': list(self.warnings),
            **info,
            'version': __version__,
        }

    def _colors(self, color_by: str) -> np.ndarray:
        """(N, 3) uint8."""
        if color_by == 'semantic':
            return class_colors(self.semantic, self.palette)
        if color_by == 'instance':
            return instance_colors(self.instance)
        if color_by == 'rgb':
            return self.rgb
        raise ValueError(f"color_by: expected 'semantic', 'instance' or 'rgb', got {color_by!r}")

    def _save_extra(self, extra: str, path: Path) -> None:
        if extra == 'glb':
            self.to_glb(path)
        elif extra == 'las':
            self.to_las(path)
        elif extra == 'scannet':
            self.to_scannet(path, path.parent.name or 'scan')
        else:
            write_instance_clouds(path, self.points, self.instances)


def _write_json(path: Path, content: Mapping[str, Json]) -> None:
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + '\n'
    atomic_write_bytes(path, text.encode('utf-8'))


def _read_result(out_dir: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Summary and arrays of a folder."""
    if not (out_dir / 'summary.json').is_file():
        raise FileNotFoundError(f'{out_dir}: has no summary.json of a finished result')
    try:
        summary = json.loads((out_dir / 'summary.json').read_text('utf-8'))
        with np.load(out_dir / 'predictions.npz', allow_pickle=False) as arrays:
            return summary, dict(arrays)
    except (ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f'{out_dir}: the result is broken ({error})') from error
