"""ScanNet as downloaded to a data root, cameras and images included.

Enters: ``ROOT/scans/<scene>/`` with ``<scene>_vh_clean_2.ply``, ``<scene>.aggregation.json`` (or
``_vh_clean.aggregation.json``), ``<scene>_vh_clean_2.0.010000.segs.json``, perhaps
``<scene>_vh_clean_2.labels.ply``, ``<scene>.txt``, and images: exported folders ``color``,
``depth``, ``pose``, ``intrinsic``, or ``<scene>.sens``; ``ROOT/scannetv2-labels.combined.tsv``.
Leaves: scenes in the layout of docs/data.md and infos per split.

ScanNet's vertices and poses share a frame that is not aligned with the axes. They are kept so,
and the alignment is recorded; with ``axis_align`` it is applied to both.
Letters: N vertices.
"""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from mmengine.logging import MMLogger
from numpy.typing import NDArray

from oneformer3d.files.names import validate_scene_name
from oneformer3d.files.ply import read_ply_vertices

from ..scenes import listed
from ..superpoints import superpoints_from_mesh
from .conversion import (
    Record,
    convert_scenes,
    raise_if_none,
    write_cloud,
    write_scene_list,
    write_split,
)
from .scannet_views import write_views

LABEL_FILE = 'scannetv2-labels.combined.tsv'
# Which column of the label file holds the ids that stand on disk.
ID_COLUMNS = {'scannet': 'nyu40id', 'scannet200': 'id'}
SPLITS = ('train', 'val', 'test')
DEBUG_SCENES = 30


def convert_scannet(
    root: str | Path,
    out: str | Path,
    dataset: str = 'scannet',
    *,
    splits: Sequence[str] = SPLITS,
    split_dir: str | Path | None = None,
    scenes: Sequence[str] | None = None,
    frame_step: int = 20,
    with_images: bool = True,
    axis_align: bool = False,
    progress: bool = True,
) -> dict[str, int]:
    """Convert what there is of ScanNet; scenes that are finished are not made again.

    Args:
        root: folder with ``scans`` (and ``scans_test``).
        out: data root.
        dataset: 'scannet' (NYU40 ids) or 'scannet200' (raw category ids).
        splits: splits to convert; one without a list of scenes is an error if it is asked for
            alone and left out otherwise.
        split_dir: folder with ``scannetv2_<split>.txt``; default ``root`` or ``root/meta_data``.
        scenes: only these.
        frame_step: keep every so many-th image.
        with_images: convert images and poses too.
        axis_align: apply the alignment to points and poses.
        progress: show a progress bar.

    Returns:
        Number of scenes per split.

    Raises:
        FileNotFoundError: no scans, lists or labels.
        ValueError: broken files; names them.
    """
    root, logger = Path(root), MMLogger.get_current_instance()
    if dataset not in ID_COLUMNS:
        raise ValueError(f'dataset: expected one of {", ".join(ID_COLUMNS)}, got {dataset!r}')

    options = {
        'converter': dataset,
        'frame_step': frame_step,
        'with_images': with_images,
        'axis_align': axis_align,
    }

    lists = find_split_lists(root, splits, split_dir)
    id_of_category = read_label_ids(root / LABEL_FILE, ID_COLUMNS[dataset])

    counts: dict[str, int] = {}
    faults: list[Exception] = []
    for split, names in lists.items():
        if scenes is not None:
            names = [name for name in names if name in set(scenes)]
        folders = {name: find_scene_folder(root, name) for name in names}
        missing = [name for name, folder in folders.items() if folder is None]
        if missing:
            logger.warning(
                f'{root}: {len(missing)} of {len(names)} scenes of {split} are left out, they are '
                f'not there: {listed(missing)}'
            )

        found = {name: folder for name, folder in folders.items() if folder is not None}
        if not found:
            continue

        def convert(scene: str, found: Mapping[str, Path] = found, split: str = split) -> Record:
            return convert_scene(
                found[scene],
                out,
                scene,
                None if split == 'test' else id_of_category,
                labels_ply=dataset == 'scannet',
                frame_step=frame_step,
                with_images=with_images,
                axis_align=axis_align,
            )

        entries, new_faults = convert_scenes(out, list(found), convert, options, progress=progress)
        faults += new_faults
        if not entries:
            continue
        write_split(out, split, dataset, entries)
        if split == 'train':
            write_split(out, 'train_debug', dataset, entries[:DEBUG_SCENES])
            write_scene_list(out, 'scannetv2_train_debug', entries[:DEBUG_SCENES])
        counts[split] = len(entries)

    raise_if_none(list(counts), faults)
    if not counts:
        raise FileNotFoundError(
            f'{root}: no scene of {", ".join(lists)} is in {root / "scans"} or '
            f'{root / "scans_test"}'
        )
    return counts


def convert_scene(
    folder: Path,
    out: str | Path,
    scene: str,
    id_of_category: Mapping[str, int] | None,
    *,
    labels_ply: bool,
    frame_step: int,
    with_images: bool,
    axis_align: bool,
) -> Record:
    """Convert one scene; return its entry of the infos.

    Args:
        folder: ``scans/<scene>``.
        out: data root.
        scene: scene name.
        id_of_category: raw category → id on disk; None makes no labels.
        labels_ply: where there is no annotation file, take the classes (NYU40 ids, without
            instances) of ``<scene>_vh_clean_2.labels.ply``.
        frame_step, with_images, axis_align: see ``convert_scannet``.
    """
    points, faces = read_mesh(folder / f'{scene}_vh_clean_2.ply')
    alignment = read_axis_alignment(folder / f'{scene}.txt')
    aligned_from_world = alignment if axis_align and alignment is not None else np.eye(4)

    segments = read_segments(folder / f'{scene}_vh_clean_2.0.010000.segs.json', len(points))
    if segments is None:
        superpoints = superpoints_from_mesh(points[:, :3], faces, points[:, 3:])
    else:
        superpoints = np.unique(segments, return_inverse=True)[1]

    semantic = instance = None
    if id_of_category is not None:
        path = find_aggregation(folder, scene)
        ply = folder / f'{scene}_vh_clean_2.labels.ply'
        if path is None and labels_ply and ply.is_file():
            semantic = read_label_ply(ply, len(points))
            instance = np.zeros_like(semantic)
        elif path is None:
            raise FileNotFoundError(f'{folder / f"{scene}.aggregation.json"}: no such file')
        else:
            semantic, instance = read_labels(path, segments, len(points), id_of_category)

    views: Record = {}
    if with_images:
        views = write_views(folder, out, scene, frame_step, aligned_from_world)
    # x' = R x + t, for the points as for the poses above
    points[:, :3] = points[:, :3] @ aligned_from_world[:3, :3].T + aligned_from_world[:3, 3]
    entry = write_cloud(
        out, scene, points, superpoints=superpoints, semantic=semantic, instance=instance
    )
    if alignment is not None:
        entry['axis_align_matrix'] = alignment.tolist()
    return entry | {'axis_aligned': axis_align and alignment is not None} | views


def read_mesh(path: Path) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Vertices with colours (N, 6) and triangles (F, 3) of a PLY file, in file order."""
    vertices = read_ply_vertices(path)
    names = ('x', 'y', 'z', 'red', 'green', 'blue')
    if not set(names) <= set(vertices.dtype.names or ()):
        raise ValueError(f'{path}: expected vertices with x, y, z, red, green, blue')
    points = np.stack([vertices[name].astype(np.float64) for name in names], axis=1)
    mesh = trimesh.load_mesh(path, process=False)
    return points, np.asarray(mesh.faces, dtype=np.int64).reshape(-1, 3)


def find_aggregation(folder: Path, scene: str) -> Path | None:
    """The file of annotated objects, or None."""
    names = (f'{scene}.aggregation.json', f'{scene}_vh_clean.aggregation.json')
    return next((folder / name for name in names if (folder / name).is_file()), None)


def read_label_ply(path: Path, num_points: int) -> NDArray[np.int64]:
    """NYU40 class ids (N,) of a labelled mesh; ids above 40 become 0."""
    vertices = read_ply_vertices(path)
    if 'label' not in (vertices.dtype.names or ()) or len(vertices) != num_points:
        raise ValueError(f'{path}: expected {num_points} vertices with a property "label"')
    labels = vertices['label'].astype(np.int64)
    return np.where((labels < 0) | (labels > 40), 0, labels)


def read_labels(
    path: Path, segments: NDArray | None, num_points: int, id_of_category: Mapping[str, int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Class id on disk and instance id (N,) of every vertex, 0 where there is none.

    Annotated objects are lists of mesh segments; objects are numbered from 1 in file order.
    """
    if segments is None:
        raise FileNotFoundError(f'{path}: its objects are made of segments, .segs.json is missing')
    groups = _read_json(path).get('segGroups')
    if not isinstance(groups, list):
        raise ValueError(f'{path}: expected a list "segGroups"')

    semantic = np.zeros(num_points, dtype=np.int64)
    instance = np.zeros(num_points, dtype=np.int64)
    order = np.argsort(segments, kind='stable')
    ordered = segments[order]
    for number, group in enumerate(groups, start=1):
        try:
            category, wanted = group['label'], np.asarray(group['segments'], dtype=np.int64)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f'{path}: object {number} lacks label or segments') from error

        # the vertices of a segment lie side by side in the sorted ids
        first = np.searchsorted(ordered, wanted, side='left')
        last = np.searchsorted(ordered, wanted, side='right')
        members = order[np.concatenate([np.arange(0), *map(np.arange, first, last)]).astype(int)]
        instance[members] = number
        semantic[members] = id_of_category.get(category, 0)
    return semantic, instance


def read_segments(path: Path, num_points: int) -> NDArray[np.int64] | None:
    """Segment id (N,) of every vertex, or None if there is no such file."""
    if not path.is_file():
        return None
    content = _read_json(path)
    try:
        segments = np.asarray(content['segIndices'], dtype=np.int64)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f'{path}: expected a list of numbers "segIndices"') from error
    if segments.shape != (num_points,):
        raise ValueError(f'{path}: {len(segments)} segment ids for {num_points} vertices')
    return segments


def read_axis_alignment(path: Path) -> NDArray[np.float64] | None:
    """``axisAlignment`` (4, 4), aligned from scanned, or None: test scenes have none."""
    if not path.is_file():
        return None
    for line in path.read_text(encoding='utf-8', errors='replace').splitlines():
        key, _, value = line.partition('=')
        if key.strip() == 'axisAlignment':
            try:
                return np.array(value.split(), dtype=np.float64).reshape(4, 4)
            except ValueError as error:
                raise ValueError(f'{path}: axisAlignment is not 16 numbers') from error
    return None


def read_label_ids(path: Path, column: str) -> dict[str, int]:
    """Raw category → id in a column of ScanNet's label file."""
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such file; it comes with the ScanNet download')
    with path.open(newline='', encoding='utf-8') as file:
        reader = csv.DictReader(file, delimiter='\t')
        if not {'raw_category', column} <= set(reader.fieldnames or ()):
            raise ValueError(f'{path}: expected columns raw_category and {column}')
        try:
            return {row['raw_category']: int(row[column]) for row in reader}
        except (TypeError, ValueError) as error:
            raise ValueError(f'{path}: line {reader.line_num}: {column} is no number') from error


def find_split_lists(
    root: Path, splits: Sequence[str], split_dir: str | Path | None
) -> dict[str, list[str]]:
    """Scene names of each split that has a list ``scannetv2_<split>.txt``."""
    folders = [Path(split_dir)] if split_dir else [root, root / 'meta_data']
    lists = {}
    for split in splits:
        path = next((f / f'scannetv2_{split}.txt' for f in folders
                     if (f / f'scannetv2_{split}.txt').is_file()), None)  # fmt: skip
        if path is not None:
            names = path.read_text(encoding='utf-8').split()
            lists[split] = [validate_scene_name(name) for name in names]
    if not lists:
        raise FileNotFoundError(
            f'{folders[0]}: none of scannetv2_{{{",".join(splits)}}}.txt is there; they are in '
            'the ScanNet repository, Tasks/Benchmark'
        )
    return lists


def find_scene_folder(root: Path, scene: str) -> Path | None:
    """``scans/<scene>`` or ``scans_test/<scene>`` if its mesh is there."""
    for folder in (root / 'scans' / scene, root / 'scans_test' / scene):
        if (folder / f'{scene}_vh_clean_2.ply').is_file():
            return folder
    return None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except (ValueError, RecursionError) as error:
        raise ValueError(f'{path}: not valid JSON: {error}') from error
    if not isinstance(content, dict):
        raise ValueError(f'{path}: expected a JSON object')
    return content
