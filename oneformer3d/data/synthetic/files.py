"""Files of a scanned room in the ScanNet layout.

Enters: a ``RoomScan``. Leaves: its files, and its entry of the infos.

``write_scan`` makes ``points/``, ``super_points/``, ``semantic_mask/`` and ``instance_mask/``
``<scene>.bin`` and ``posed_images/<scene>/`` with, per frame, ``.jpg`` colour, ``.png`` depth in
millimetres, ``.txt`` pose, ``.semantic.png`` and ``.instance.png`` label maps. The points file is
written last: a scene that has one is complete.
"""

import os
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from oneformer3d.files.atomic import atomic_write_bytes, temporary_folder

from .render import RenderedFrame
from .scan import RoomScan

CLOUD_FOLDERS = ('super_points', 'semantic_mask', 'instance_mask', 'points')


def write_scan(root: Path, scene: str, scan: RoomScan, jpeg_quality: int) -> None:
    """Write all files of a scene; a killed writer leaves the scene incomplete, never half.

    Args:
        scan: what to write.
        jpeg_quality: 1–100.
    """
    write_frames(root / 'posed_images' / scene, scan, jpeg_quality)
    arrays = (
        scan.superpoints.astype(np.int64),
        scan.semantic.astype(np.int64),
        scan.instance.astype(np.int64),
        scan.points.astype(np.float32),
    )
    for folder, array in zip(CLOUD_FOLDERS, arrays, strict=True):
        atomic_write_bytes(root / folder / f'{scene}.bin', np.ascontiguousarray(array).tobytes())


def is_complete(root: Path, scene: str) -> bool:
    """Whether ``write_scan`` finished for a scene."""
    clouds = (root / folder / f'{scene}.bin' for folder in CLOUD_FOLDERS)
    return (root / 'posed_images' / scene).is_dir() and all(path.is_file() for path in clouds)


def write_frames(folder: Path, scan: RoomScan, jpeg_quality: int) -> None:
    """Write the images of a scene beside their final folder and move them there at once."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with temporary_folder(folder.parent, folder.name) as temporary:
        images = temporary / 'images'
        images.mkdir()
        np.savetxt(images / 'intrinsic.txt', scan.intrinsics, fmt='%.9f')
        np.savetxt(images / 'depth_intrinsic.txt', scan.intrinsics, fmt='%.9f')
        for index, frame in enumerate(scan.frames):
            write_frame(images, f'{index:05d}', frame, jpeg_quality)

        if folder.exists():  # left by a writer that was killed before the points
            shutil.rmtree(folder)
        os.replace(images, folder)


def write_frame(folder: Path, name: str, frame: RenderedFrame, jpeg_quality: int) -> None:
    """Write the five files of one frame."""
    jpeg = [
        *(cv2.IMWRITE_JPEG_QUALITY, jpeg_quality),
        *(cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
    ]

    for suffix, image, options in (
        ('.jpg', frame.color[..., ::-1], jpeg),
        ('.png', frame.depth, []),
        ('.semantic.png', frame.semantic, []),
        ('.instance.png', frame.instance, []),
    ):
        written, content = cv2.imencode(suffix[-4:], image, options)
        if not written:
            raise OSError(f'{folder / name}{suffix}: could not be encoded')
        (folder / f'{name}{suffix}').write_bytes(content.tobytes())
    np.savetxt(folder / f'{name}.txt', frame.world_from_cam, fmt='%.9f')


def scene_info(root: Path, scene: str, image_size: tuple[int, int]) -> dict[str, Any]:
    """The entry of a written scene in the infos file.

    Args:
        image_size: (H, W) of colour and depth.

    Returns:
        Keys as in ``docs/data.md``.
    """
    folder = root / 'posed_images' / scene
    intrinsics = np.loadtxt(folder / 'intrinsic.txt').tolist()
    frames = sorted(path.stem for path in folder.glob('*.jpg'))

    return {
        'scene_id': scene,
        'lidar_points': {'num_pts_feats': 6, 'lidar_path': f'{scene}.bin'},
        'super_pts_path': f'{scene}.bin',
        'pts_semantic_mask_path': f'{scene}.bin',
        'pts_instance_mask_path': f'{scene}.bin',
        'image_size': list(image_size),
        'cam2img': intrinsics,
        'depth2img': intrinsics,
        'depth_size': list(image_size),
        'images': [
            {
                'frame': frame,
                'img_path': f'{scene}/{frame}.jpg',
                'depth_path': f'{scene}/{frame}.png',
                'world_from_cam': np.loadtxt(folder / f'{frame}.txt').tolist(),
            }
            for frame in frames
        ],
        'num_dropped_poses': 0,
    }
