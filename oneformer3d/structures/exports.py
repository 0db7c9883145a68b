"""Instances in the forms that other programs read.

Enters: instances of a scan by descending score. Leaves: plain JSON values, the ScanNet benchmark's
files, a cloud per instance. N points of the scan, K instances, C classes.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from oneformer3d.files.atomic import atomic_write_bytes
from oneformer3d.files.plain import Json
from oneformer3d.files.ply import write_ply

from .boxes import UprightBox
from .instances import Instance, encode_runs


def coco_instances(
    instances: Sequence[Instance],
    class_names: Sequence[str],
    class_ids: Sequence[int],
    upright_from_scan: np.ndarray,
) -> dict[str, Json]:
    """``categories`` and ``annotations`` as COCO names them, with upright boxes for its flat ones.

    Args:
        instances: K.
        class_names: C names.
        class_ids: C ids of the dataset.
        upright_from_scan: (3, 3) rotation.

    Returns:
        An annotation has ``id``, ``category_id``, ``category``, ``score``, ``num_points``,
        ``box`` (``centre``, ``size``, ``yaw``, of the scan turned upright), its ``corners`` (8, 3)
        in the scan's own coordinates, and ``segmentation``, COCO's uncompressed run lengths of a
        mask of N × 1.
    """
    categories: list[Json] = [
        {'id': int(number), 'name': name} for name, number in zip(class_names, class_ids)
    ]

    annotations: list[Json] = [
        {
            'id': row,
            'category_id': int(class_ids[instance.label]),
            'category': instance.name,
            'score': round(instance.score, 4),
            'num_points': instance.num_points,
            'box': box_json(instance.box),
            'corners': [rounded(corner) for corner in instance.box.corners @ upright_from_scan],
            'segmentation': {
                'size': [instance.num_scan_points, 1],
                'counts': list(encode_runs(instance.mask)),
            },
        }
        for row, instance in enumerate(instances)
    ]
    return {'categories': categories, 'annotations': annotations}


def box_json(box: UprightBox) -> dict[str, Json]:
    """A box in millimetres' precision."""
    return {
        'centre': rounded(box.centre),
        'size': rounded(box.size),
        'yaw': round(box.yaw, 4),
    }


def rounded(values: Sequence[float] | np.ndarray, digits: int = 3) -> list[Json]:
    """Floats that read well."""
    return [round(float(value), digits) for value in values]


def write_submission(
    folder: str | Path,
    scene: str,
    instances: Sequence[Instance],
    semantic: np.ndarray,
    class_ids: Sequence[int],
) -> None:
    """The files that the ScanNet benchmark asks for; scenes share the folder.

    ``instance/SCENE.txt`` has a line ``predicted_masks/SCENE_000.txt ID SCORE`` for each instance,
    a mask file a line 0 or 1 for each point; ``semantic/SCENE.txt`` has the class of each point.
    All ids are the dataset's own.

    Args:
        folder: made if missing.
        scene: name of the scan.
        instances: K.
        semantic: (N,) class 0…C−1.
        class_ids: C ids of the dataset.
    """
    lines = []
    for row, instance in enumerate(instances):
        name = f'predicted_masks/{scene}_{row:03d}.txt'
        # '0\n' and '1\n' as bytes: a scan has millions of lines
        text = np.full((instance.num_scan_points, 2), ord('\n'), dtype=np.uint8)  # (N, 2)
        text[:, 0] = ord('0') + instance.mask
        atomic_write_bytes(Path(folder, 'instance', name), text.tobytes())
        lines.append(f'{name} {class_ids[instance.label]} {instance.score:.6f}\n')

    words = np.array([f'{number}\n' for number in class_ids])
    atomic_write_bytes(Path(folder, 'semantic', f'{scene}.txt'), ''.join(words[semantic]).encode())
    atomic_write_bytes(Path(folder, 'instance', f'{scene}.txt'), ''.join(lines).encode())


def write_instance_clouds(
    folder: str | Path, points: np.ndarray, instances: Sequence[Instance]
) -> None:
    """One PLY per instance, ``003_chair.ply``, in the colours of the scan.

    Files of an earlier result in the folder that this one does not have are removed.

    Args:
        folder: made if missing.
        points: (N, 6) xyz in metres and rgb 0–255.
        instances: K.
    """
    names = []
    for row, instance in enumerate(instances):
        cloud = points[instance.members]
        names.append(f'{row:03d}_{file_word(instance.name)}.ply')
        write_ply(Path(folder, names[-1]), cloud[:, :3], cloud[:, 3:].astype(np.uint8))

    os.makedirs(folder, exist_ok=True)
    for path in Path(folder).glob('[0-9][0-9][0-9]_*.ply'):
        if path.name not in names:
            path.unlink()


def file_word(name: str) -> str:
    """A class name that can stand in a file's name: ``office chair`` → ``office-chair``."""
    return ''.join(c if c.isascii() and c.isalnum() else '-' for c in name) or 'instance'
