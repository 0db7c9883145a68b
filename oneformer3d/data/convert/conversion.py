"""What all converters share: writing a scene into a data root, once, and listing it in infos.

Enters: arrays and frames of one scene. Leaves: its files in the layout of docs/data.md, a record in
``meta_data/scenes/<scene>.json``, and infos and scene lists assembled from the records.

The record is written last, so a scene that has one is complete; it also keeps the options the
scene was made with, so that a second run continues and one with other options is refused.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.logging import MMLogger
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from oneformer3d.files.atomic import atomic_write_bytes, temporary_folder
from oneformer3d.files.names import validate_scene_name
from oneformer3d.lifting.shapes import expect_shape

from ..infos import write_infos
from ..layouts import PosedFrame

_JPEG_QUALITY = 95
_MASK_FOLDERS = {
    'super_pts_path': 'super_points',
    'pts_semantic_mask_path': 'semantic_mask',
    'pts_instance_mask_path': 'instance_mask',
}

Record = dict[str, Any]


def convert_scenes(
    out: str | Path,
    scenes: Sequence[str],
    convert: Callable[[str], Record],
    options: Mapping[str, Any],
    *,
    progress: bool = True,
) -> tuple[list[Record], list[Exception]]:
    """Convert the scenes that a data root does not have yet.

    Damage of one scene is no reason to lose the others: it is left out, and the log names it and
    says why.

    Args:
        out: data root, made if missing.
        scenes: scene names.
        convert: makes one scene's files and returns its entry of the infos.
        options: what decides how a scene comes out; JSON values.
        progress: show a progress bar.

    Returns:
        The entries of the scenes that are there now, in order, and what was wrong with the
        others.

    Raises:
        ValueError: unsafe or double scene names, or scenes made with other options.
    """
    if len(set(scenes)) != len(scenes):
        raise ValueError(f'{out}: a scene is given twice among {len(scenes)}')

    log = MMLogger.get_current_instance()
    entries: list[Record] = []
    faults: list[Exception] = []
    num_there = 0
    for scene in tqdm(scenes, desc='scenes', unit='scene', disable=not progress):
        entry = finished_entry(out, scene, options)
        num_there += entry is not None
        try:
            entries.append(entry or convert_and_record(out, scene, convert, options))
        except (FileNotFoundError, ValueError) as error:
            faults.append(error)
            log.warning(f'{scene}: left out: {error}')

    num_made = len(entries) - num_there
    log.info(f'{out}: {num_made} scenes converted, {num_there} were there, {len(faults)} left out')
    return entries, faults


def convert_and_record(
    out: str | Path, scene: str, convert: Callable[[str], Record], options: Mapping[str, Any]
) -> Record:
    """Convert one scene and write its record; see ``convert_scenes``."""
    entry = convert(scene)
    content = json.dumps({'options': dict(options), 'entry': entry}, allow_nan=False)
    atomic_write_bytes(record_path(out, scene), content.encode())
    return entry


def raise_if_none(converted: Sequence[Any], faults: Sequence[Exception]) -> None:
    """Of a conversion that gave nothing at all, raise its first fault."""
    if faults and not converted:
        raise faults[0]


def record_path(out: str | Path, scene: str) -> Path:
    """Where a finished scene's record lies."""
    return Path(out) / 'meta_data' / 'scenes' / f'{validate_scene_name(scene)}.json'


def write_split(
    out: str | Path, split: str, dataset: str | None, entries: Sequence[Record]
) -> None:
    """Write ``oneformer3d_infos_<split>.json`` and the list of its scenes."""
    metainfo = {} if dataset is None else {'dataset': dataset}
    out = Path(out)
    write_infos(
        out / f'oneformer3d_infos_{split}.json',
        {'metainfo': metainfo, 'data_list': list(entries)},
    )
    write_scene_list(out, f'{dataset or "scenes"}_{split}', entries)


def write_scene_list(out: str | Path, name: str, entries: Sequence[Record]) -> None:
    """Write ``meta_data/<name>.txt``, one scene per line."""
    names = ''.join(f'{entry["scene_id"]}\n' for entry in entries)
    atomic_write_bytes(Path(out) / 'meta_data' / f'{name}.txt', names.encode())


def write_cloud(
    out: str | Path,
    scene: str,
    points: NDArray,
    *,
    superpoints: NDArray | None = None,
    semantic: NDArray | None = None,
    instance: NDArray | None = None,
) -> Record:
    """Write points (N, 6) and the labels (N,) there are; return the scene's entry of the infos.

    Raises:
        ValueError: no points, or labels of another length.
    """
    expect_shape(f'{scene}: points', points, 'N 6')
    if len(points) == 0:
        raise ValueError(f'{scene}: no points')

    file_name = f'{validate_scene_name(scene)}.bin'
    entry: Record = {
        'scene_id': scene,
        'lidar_points': {'num_pts_feats': 6, 'lidar_path': file_name},
    }
    for key, labels in zip(_MASK_FOLDERS, (superpoints, semantic, instance)):
        if labels is None:
            continue
        expect_shape(f'{scene}: {_MASK_FOLDERS[key]}', labels, 'N', N=len(points))
        content = np.ascontiguousarray(labels, dtype='<i8').tobytes()
        atomic_write_bytes(Path(out) / _MASK_FOLDERS[key] / file_name, content)
        entry[key] = file_name

    content = np.ascontiguousarray(points, dtype='<f4').tobytes()
    atomic_write_bytes(Path(out) / 'points' / file_name, content)
    return entry


class ViewWriter:
    """Write the posed images of one scene into a folder and collects their infos."""

    def __init__(self, folder: Path, scene: str) -> None:
        self.folder = folder
        self.scene = scene
        self.images: list[Record] = []

    def add(
        self,
        frame: str,
        world_from_cam: NDArray,
        color: Path | bytes | NDArray,
        depth: NDArray | None,
        own_cameras: Mapping[str, NDArray] | None = None,
    ) -> None:
        """Add a frame.

        Args:
            frame: its name.
            world_from_cam: (4, 4) in the frame of the points.
            color: A JPEG, as a path or bytes, that is kept as it is; or RGB uint8 (H, W, 3).
            depth: (H', W') uint16 millimetres, 0 = missing; None where there is none.
            own_cameras: ``cam2img`` and ``depth2img`` (3, 3) where they are not the scene's.
        """
        stem = self.folder / validate_scene_name(frame)
        if isinstance(color, Path):
            shutil.copyfile(color, f'{stem}.jpg')
        elif isinstance(color, bytes):
            Path(f'{stem}.jpg').write_bytes(color)
        else:
            Image.fromarray(color).save(f'{stem}.jpg', quality=_JPEG_QUALITY, subsampling=0)
        record = {'frame': frame, 'img_path': f'{self.scene}/{frame}.jpg'}
        if depth is not None:
            Image.fromarray(depth.astype(np.uint16)).save(f'{stem}.png')
            record['depth_path'] = f'{self.scene}/{frame}.png'
        own = {key: np.asarray(K).tolist() for key, K in (own_cameras or {}).items()}
        if 'cam2img' in own:
            save_matrix(self.folder / f'{frame}.intrinsic.txt', own['cam2img'])
        self.images.append(record | {'world_from_cam': np.asarray(world_from_cam).tolist()} | own)

    def move(self, new_from_world: NDArray) -> None:
        """Express all poses so far in another frame, ``new_from_world`` (4, 4)."""
        for image in self.images:
            image['world_from_cam'] = (new_from_world @ np.array(image['world_from_cam'])).tolist()

    def finish(
        self,
        color_intrinsics: NDArray,
        depth_intrinsics: NDArray,
        image_size: tuple[int, int],
        depth_size: tuple[int, int],
        num_dropped_poses: int,
    ) -> Record:
        """Write poses and cameras; return the part of the scene's entry that is about images."""
        for image in self.images:
            save_matrix(self.folder / f'{image["frame"]}.txt', image['world_from_cam'])
        save_matrix(self.folder / 'intrinsic.txt', color_intrinsics)
        save_matrix(self.folder / 'depth_intrinsic.txt', depth_intrinsics)
        return {
            'image_size': [int(side) for side in image_size],
            'depth_size': [int(side) for side in depth_size],
            'cam2img': np.asarray(color_intrinsics).tolist(),
            'depth2img': np.asarray(depth_intrinsics).tolist(),
            'images': self.images,
            'num_dropped_poses': num_dropped_poses,
        }


def jpeg_or_pixels(frame: PosedFrame, color: NDArray[np.uint8]) -> Path | NDArray[np.uint8]:
    """What ``ViewWriter.add`` should store: a JPEG as it is, else the decoded (H, W, 3) image."""
    is_jpeg = frame.image_path.suffix.lower() in ('.jpg', '.jpeg')
    same = frame.distortion is None and frame.image_size == color.shape[:2]
    return frame.image_path if is_jpeg and same else color


@contextmanager
def view_writer(out: str | Path, scene: str) -> Iterator[ViewWriter]:
    """A ``ViewWriter`` whose folder becomes ``posed_images/<scene>`` when the block ends well."""
    parent = Path(out) / 'posed_images'
    parent.mkdir(parents=True, exist_ok=True)
    final = parent / validate_scene_name(scene)
    with temporary_folder(parent, scene) as temporary:
        folder = temporary / 'images'
        folder.mkdir()
        yield ViewWriter(folder, scene)
        if final.exists():  # of a run that was killed before the scene's record
            shutil.rmtree(final)
        os.replace(folder, final)


def save_matrix(path: str | Path, matrix: NDArray) -> None:
    """Write a matrix as text that reads back to the same float32 values."""
    np.savetxt(path, matrix, fmt='%.9g')


def finished_entry(out: str | Path, scene: str, options: Mapping[str, Any]) -> Record | None:
    """The entry of a scene that is there, None of one that is not.

    Raises:
        ValueError: it was made with other options, or its record is damaged.
    """
    path, options = record_path(out, scene), json.loads(json.dumps(dict(options)))
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding='utf-8'))
        made_with, entry = record['options'], record['entry']
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f'{path}: not a record of a converted scene ({error})') from error

    if made_with != options:
        differing = sorted(
            key for key in made_with.keys() | options if made_with.get(key) != options.get(key)
        )
        was = ', '.join(f'{key} {made_with.get(key)}' for key in differing)
        now = ', '.join(f'{key} {options.get(key)}' for key in differing)
        raise ValueError(
            f'{path}: the scene was made with {was}, now asked for {now}; use another folder'
        )
    return entry
