"""S3DIS as downloaded to a data root: one scene per room, no superpoints, no images.

Enters: ``ROOT/Area_k/<room>/Annotations/<class>_<i>.txt`` with lines ``x y z r g b``
(Stanford3dDataset_v1.2_Aligned_Version). Leaves: scenes ``Area_k_<room>`` in the layout of
docs/data.md, ``oneformer3d_infos_Area_k.json``, and the usual train and val splits.

Rooms are shifted so that their smallest coordinates are 0; the shift is kept in the infos.
"""

import io
import re
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from oneformer3d.files.names import validate_scene_name

from ..class_tables import get_class_table
from .conversion import Record, convert_scenes, write_cloud, write_split

AREAS = (1, 2, 3, 4, 5, 6)
VAL_AREAS = (5,)
# One file of the dataset has a control character where a space belongs (hallway_6 of Area_5).
_SPACES = bytes(byte if byte >= 32 or byte in b'\t\n\r' else 32 for byte in range(256))


def convert_s3dis(
    root: str | Path,
    out: str | Path,
    *,
    areas: Sequence[int] = AREAS,
    progress: bool = True,
) -> dict[str, int]:
    """Convert the areas there are; rooms that are finished are not made again.

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
    for area in areas:
        rooms = find_rooms(root / f'Area_{area}')
        if rooms:
            by_area[area] = convert_scenes(
                out,
                list(rooms),
                lambda scene, rooms=rooms: convert_room(rooms[scene], out, scene),
                {'converter': 's3dis'},
                progress=progress,
            )

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

    Raises:
        ValueError: not six finite numbers per line, or colours outside 0–255; names file and line.
    """
    content = path.read_bytes().translate(_SPACES)
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


def find_rooms(area: Path) -> dict[str, Path]:
    """Scene name → folder ``Annotations`` of every room of an area."""
    return {
        validate_scene_name(f'{area.name}_{path.parent.name}'): path
        for path in sorted(area.glob('*/Annotations'))
        if path.is_dir()
    }


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
        try:
            if len([float(number) for number in line.split()]) not in (0, 6):
                return number
        except ValueError:
            return number
    return 1
