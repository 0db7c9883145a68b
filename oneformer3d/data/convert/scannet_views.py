"""The images of one ScanNet scene, from exported folders or straight from its ``.sens`` file.

Enters: ``scans/<scene>``. Leaves: ``posed_images/<scene>`` and the scene's cameras and poses.
"""

import io
from pathlib import Path

import torch
from mmengine.logging import MMLogger
from numpy.typing import NDArray

from oneformer3d.files.images import open_image
from oneformer3d.lifting.camera import is_valid_pose

from ..layouts.cameras import check_intrinsics
from ..layouts.common import common_camera
from ..layouts.find import list_folder
from ..posed_rgbd import load_posed_rgbd, readable_frames
from .conversion import Record, ViewWriter, view_writer
from .frame_views import add_frame, finish_views
from .sens import read_sens, read_sens_header


def write_views(
    folder: Path, out: str | Path, scene: str, frame_step: int, new_from_world: NDArray
) -> Record:
    """Convert a scene's images; return the part of its infos that is about them.

    Args:
        folder: ``scans/<scene>``, with folders ``color``, ``depth``, ``pose``, ``intrinsic`` or
            the file ``<scene>.sens``; without both nothing is written.
        out: data root.
        scene: scene name.
        frame_step: keep every so many-th frame.
        new_from_world: (4, 4) applied to all poses.

    Raises:
        ValueError: broken files; names them.
    """
    sens = folder / f'{scene}.sens'
    if (folder / 'depth').is_dir() and list_folder(folder) is not None:
        with view_writer(out, scene) as views:
            about_images = _add_exported(views, folder, frame_step, new_from_world)
    elif sens.is_file():
        with view_writer(out, scene) as views:
            about_images = _add_recorded(views, sens, frame_step, new_from_world)
    else:
        MMLogger.get_current_instance().warning(
            f'{folder}: no images, neither folders color, depth, pose, intrinsic nor {sens.name}'
        )
        return {}
    return about_images


def _add_exported(
    views: ViewWriter, folder: Path, frame_step: int, new_from_world: NDArray
) -> Record:
    sequence = load_posed_rgbd(folder, frame_step)
    common = common_camera(sequence.frames)
    for frame, color, depth in readable_frames(sequence):
        pose = new_from_world @ frame.world_from_cam
        add_frame(views, common, frame.name.zfill(5), pose, frame, color, depth)

    num_unreadable = len(sequence.frames) - len(views.images)
    about_images = finish_views(views, common, sequence.num_dropped_poses)
    return about_images | {'num_unreadable_images': num_unreadable}


def _add_recorded(
    views: ViewWriter, sens: Path, frame_step: int, new_from_world: NDArray
) -> Record:
    header, num_dropped = read_sens_header(sens), 0
    check_intrinsics(header.color_intrinsics, f'{sens}: colour')
    check_intrinsics(header.depth_intrinsics, f'{sens}: depth')

    for frame in read_sens(sens, frame_step):
        if not is_valid_pose(torch.from_numpy(frame.world_from_cam)):
            num_dropped += 1
            continue
        _check_jpeg(frame.jpeg, header.image_size, f'{sens}: frame {frame.index}')
        views.add(
            f'{frame.index:05d}', new_from_world @ frame.world_from_cam, frame.jpeg, frame.depth
        )

    if num_dropped:
        MMLogger.get_current_instance().warning(
            f'{sens}: left out {num_dropped} frames without a finite rigid pose'
        )
    if not views.images:
        raise ValueError(f'{sens}: no frame with a valid pose')
    return views.finish(
        header.color_intrinsics,
        header.depth_intrinsics,
        header.image_size,
        header.depth_size,
        num_dropped,
    )


def _check_jpeg(content: bytes, size: tuple[int, int], where: str) -> None:
    try:
        with open_image(io.BytesIO(content), formats=('JPEG',)) as image:
            found = image.size[::-1]
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f'{where}: colour is no JPEG image') from error
    if found != size:
        raise ValueError(f'{where}: colour is {found} pixels, the header says {size}')
