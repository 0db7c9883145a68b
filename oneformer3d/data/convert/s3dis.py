"""S3DIS as downloaded to a data root: one scene per room, no superpoints, no images.

Enters: ``ROOT/Area_k/<room>/Annotations/<class>_<i>.txt`` with lines ``x y z r g b``
(Stanford3dDataset_v1.2_Aligned_Version). Leaves: scenes ``Area_k_<room>`` in the layout of
docs/data.md, ``oneformer3d_infos_Area_k.json``, and the usual train and val splits.

Rooms are shifted so that their smallest coordinates are 0; the shift is kept in the infos.
"""

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from mmengine.logging import MMLogger
from numpy.typing import NDArray

from oneformer3d.files.names import validate_scene_name

from ..class_tables import get_class_table
from .conversion import Record, convert_scenes, raise_if_none, write_cloud, write_split

AREAS = (1, 2, 3, 4, 5, 6)
VAL_AREAS = (5,)
# Some files of the dataset have a control character in place of a digit or of a space.
_CONTROL = re.compile(rb'[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]')
_LOST_BIT = 0x20  # '0'…'9', '.' and '-' less this bit are control characters


def convert_s3dis(
    root: str | Path,
    out: str | Path,
    *,
    areas: Sequence[int] = AREAS,
    progress: bool = True,
) -> dict[str, int]:
    """Convert the areas there are; rooms that are finished are not made again.

    The log names rooms that are left out, and why, and what was repaired.

    Args:
        root: folder with ``Area_1`` … ``Area_6``, or its parent.
        out: data root.
        areas: numbers of the areas wanted.
        progress: show a progress bar.

    Returns:
        Number of rooms per split: ``Area_k``, ``train`` (all but 5), ``val`` (5).

    Raises:
        FileNotFoundError: none of the areas is there.
        ValueError: broken files; names file and line.
    """
    root = _find_root(Path(root), areas)
    by_area: dict[int, list[Record]] = {}
    faults: list[Exception] = []
    for area in areas:
        rooms, without = find_rooms(root / f'Area_{area}')
        for room in without:
            MMLogger.get_current_instance().warning(
                f'{room}: left out: no folder Annotations, so it has no labels; tools/infer.py '
                'segments its points'
            )
        if not rooms:
            continue
        entries, new_faults = convert_scenes(
            out,
            list(rooms),
            lambda scene, rooms=rooms: convert_room(rooms[scene], out, scene),
            {'converter': 's3dis'},
            progress=progress,
        )
        faults += new_faults
        if entries:
            by_area[area] = entries

    raise_if_none(list(by_area), faults)
    if not by_area:
        raise FileNotFoundError(f'{root}: no rooms with a folder Annotations in its areas')

    splits = {f'Area_{area}': entries for area, entries in by_area.items()}
    splits['train'] = [e for area in by_area if area not in VAL_AREAS for e in by_area[area]]
    splits['val'] = [e for area in by_area if area in VAL_AREAS for e in by_area[area]]
    splits = {split: entries for split, entries in splits.items() if entries}
    for split, entries in splits.items():
        write_split(out, split, 's3dis', entries)
    return {split: len(entries) for split, entries in splits.items()}


def convert_room(annotations: Path, out: str | Path, scene: str) -> Record:
    """Convert one room; return its entry of the infos.

    Args:
        annotations: its folder ``Annotations``.
        out: data root.
        scene: scene name.
    """
    table = get_class_table('s3dis')
    raw_ids = dict(zip(table.classes, table.raw_ids))
    objects, labels = [], []
    for path in sorted(annotations.glob('*.txt'), key=_object_order):
        # 'stairs' and the like are not among the 13 classes: clutter.
        name = path.stem.rpartition('_')[0]
        labels.append(raw_ids.get(name, raw_ids['clutter']))
        objects.append(read_object(path))
    if not objects:
        raise ValueError(f'{annotations}: no objects (*.txt)')

    sizes = [len(points) for points in objects]
    points = np.concatenate(objects)  # (N, 6)
    origin = points[:, :3].min(axis=0)
    points[:, :3] -= origin
    entry = write_cloud(
        out,
        scene,
        points,
        semantic=np.repeat(labels, sizes),
        instance=np.repeat(np.arange(1, len(objects) + 1), sizes),
    )
    return entry | {'origin': origin.tolist()}


def read_object(path: Path) -> NDArray[np.float64]:
    """Points (N, 6) of one annotated object: xyz in metres, rgb 0–255.

    Damaged lines that can be repaired are, and logged.

    Raises:
        ValueError: not six finite numbers per line, or colours outside 0–255; names file and line.
    """
    content = path.read_bytes()
    repairs = dict(find_damaged_lines(content))
    if repairs:
        lines = content.split(b'\n')
        content = b'\n'.join(repairs.get(k, line) for k, line in enumerate(lines, start=1))
        for number, repaired in repairs.items():
            MMLogger.get_current_instance().warning(
                f'{path}: line {number} has a damaged character and is read as '
                f'{repaired.decode("latin-1")}'
            )

    try:
        with warnings.catch_warnings():
            warnings.simplefilter('error', UserWarning)  # what numpy says of empty files
            points = np.loadtxt(io.BytesIO(content), dtype=np.float64, ndmin=2, comments=None)
    except UserWarning as error:
        raise ValueError(f'{path}: no points') from error
    except ValueError as error:
        raise ValueError(
            f'{path}: line {_first_bad_line(content)}: expected x y z r g b'
        ) from error

    if points.shape[1] != 6:
        raise ValueError(f'{path}: line 1: expected x y z r g b, got {points.shape[1]} numbers')
    bad = (
        ~np.isfinite(points).all(axis=1) | (points[:, 3:] < 0).any(1) | (points[:, 3:] > 255).any(1)
    )
    if bad.any():
        row = int(np.argmax(bad))
        raise ValueError(
            f'{path}: point {row + 1}: expected finite numbers and colours 0…255, got '
            f'{points[row].tolist()}'
        )
    return points


def find_damaged_lines(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Numbers of the lines with control characters, from 1, and how these lines should read.

    A control character was a digit that lost a bit, or else a space: whichever makes the line
    six numbers. A line that neither makes right stays as it is.

    Example:
        >>> list(find_damaged_lines(b'1 2 3 4 5 6\\n1 2 3 103.0\\x100000 99 98'))
        [(2, b'1 2 3 103.000000 99 98')]
        >>> list(find_damaged_lines(b'1 2 3 185\\x10187 98'))
        [(1, b'1 2 3 185 187 98')]
    """
    if not _CONTROL.search(content):
        return
    for number, line in enumerate(content.split(b'\n'), start=1):
        if not _CONTROL.search(line):
            continue
        with_bit = _CONTROL.sub(lambda found: bytes([found[0][0] | _LOST_BIT]), line)
        for repaired in (with_bit, _CONTROL.sub(b' ', line)):
            if _num_numbers(repaired) == 6:
                yield number, repaired.strip()
                break


def find_rooms(area: Path) -> tuple[dict[str, Path], list[Path]]:
    """Rooms of an area: scene name → folder ``Annotations``, and the rooms without one."""
    rooms: dict[str, Path] = {}
    without = []
    for room in sorted(path for path in area.glob('*') if path.is_dir()):
        folders = [path for path in room.iterdir() if path.is_dir()]
        found = [path for path in folders if path.name.lower() == 'annotations']
        if found:
            rooms[validate_scene_name(f'{area.name}_{room.name}')] = found[0]
        else:
            without.append(room)
    return rooms, without


def _find_root(root: Path, areas: Sequence[int]) -> Path:
    if not root.is_dir():
        raise FileNotFoundError(f'{root}: no such folder')
    for folder in (root, root / 'Stanford3dDataset_v1.2_Aligned_Version'):
        if any((folder / f'Area_{area}').is_dir() for area in areas):
            return folder
    raise FileNotFoundError(
        f'{root}: none of {", ".join(f"Area_{area}" for area in areas)} is there; expected the '
        'folder Stanford3dDataset_v1.2_Aligned_Version'
    )


def _object_order(path: Path) -> tuple[str, int, str]:
    match = re.fullmatch(r'(.*)_(\d+)', path.stem)
    return (match[1], int(match[2]), '') if match else (path.stem, 0, path.stem)


def _first_bad_line(content: bytes) -> int:
    for number, line in enumerate(content.splitlines(), start=1):
        if _num_numbers(line) not in (0, 6):
            return number
    return 1


def _num_numbers(line: bytes) -> int | None:
    """How many numbers a line holds; None if it holds anything else."""
    try:
        return len([float(word) for word in line.split()])
    except ValueError:
        return None
