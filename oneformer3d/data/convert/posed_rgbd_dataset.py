"""Folders of posed RGB-D frames to a data root: points, superpoints and views, no labels.

Enters: one sequence, or a folder of sequences, in a layout of ``posed_rgbd``. Leaves: scenes in the
layout of docs/data.md and ``oneformer3d_infos_<split>.json``, turned so that z is up.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from oneformer3d.files.names import validate_scene_name

from ..fuse_rgbd import fuse_posed_rgbd
from ..posed_rgbd import LAYOUTS_IN_WORDS, RawFrame, find_layout, load_posed_rgbd
from ..superpoints import superpoints_from_points
from ..upright import refine_up, rotation_to_z_up, up_from_axis, up_from_cameras
from .conversion import (
    Record,
    convert_scenes,
    jpeg_or_pixels,
    view_writer,
    write_cloud,
    write_split,
)


def convert_posed_rgbd(
    root: str | Path,
    out: str | Path,
    *,
    split: str = 'test',
    voxel_size: float = 0.03,
    max_depth: float = 5.0,
    frame_step: int = 1,
    up: str = 'auto',
    progress: bool = True,
) -> int:
    """Convert a sequence, or all sequences up to two folders below ``root``.

    Args:
        root: sequence or folder of sequences.
        out: data root.
        split: name of the infos.
        voxel_size, max_depth: see ``fuse_posed_rgbd``.
        frame_step: take every so many-th frame.
        up: axis of the poses' world that points up, or 'auto': as the cameras were held, made
            exact by the floor and the table tops. Points and poses are turned alike.
        progress: show a progress bar.

    Returns:
        Number of scenes in the infos.

    Raises:
        FileNotFoundError, ValueError: nothing to convert, or broken files; names them.
    """
    sequences = find_sequences(root)
    options = {
        'converter': 'posed_rgbd',
        'voxel_size': voxel_size,
        'max_depth': max_depth,
        'frame_step': frame_step,
        'up': up,
    }
    validate_scene_name(split)
    single = len(sequences) == 1

    def convert(scene: str) -> Record:
        return convert_sequence(
            sequences[scene],
            out,
            scene,
            voxel_size=voxel_size,
            max_depth=max_depth,
            frame_step=frame_step,
            up=up,
            progress=progress and single,
        )

    entries = convert_scenes(out, list(sequences), convert, options, progress=progress)
    write_split(out, split, None, entries)
    return len(entries)


def convert_sequence(
    folder: Path,
    out: str | Path,
    scene: str,
    *,
    voxel_size: float,
    max_depth: float,
    frame_step: int,
    up: str,
    progress: bool,
) -> Record:
    """Convert one sequence; return its entry of the infos. Arguments as above."""
    sequence = load_posed_rgbd(folder, frame_step)
    upright_from_world = np.eye(4)
    with view_writer(out, scene) as views:

        def add(frame: RawFrame, color: NDArray, depth: NDArray) -> None:
            image = jpeg_or_pixels(frame, color)
            views.add(frame.name, frame.world_from_cam, image, np.round(depth * 1000))

        scan = fuse_posed_rgbd(
            sequence, voxel_size, max_depth=max_depth, progress=progress, on_frame=add
        )
        poses = np.stack([frame.world_from_cam for frame in scan.frames])
        upright_from_world[:3, :3] = rotation_to_z_up(find_up(scan.points, poses, up))
        views.move(upright_from_world)
        about_images = views.finish(
            sequence.color_intrinsics,
            sequence.depth_intrinsics,
            scan.image_size,
            scan.depth_size,
            sequence.num_dropped_poses,
        )
    points = scan.points.copy()
    points[:, :3] = points[:, :3] @ upright_from_world[:3, :3].T.astype(np.float32)
    superpoints = superpoints_from_points(points[:, :3], points[:, 3:])
    entry = write_cloud(out, scene, points, superpoints=superpoints)
    return (
        entry
        | about_images
        | {
            'axis_align_matrix': upright_from_world.tolist(),
            'axis_aligned': True,
            'num_unreadable_images': scan.num_unreadable,
        }
    )


def find_up(points: NDArray, world_from_cam: NDArray, up: str) -> NDArray[np.float64]:
    """Unit vector (3,): the named axis, or with 'auto' what cameras and floor agree on."""
    if up != 'auto':
        return up_from_axis(up)
    return refine_up(points[:, :3], up_from_cameras(world_from_cam))


def find_sequences(root: str | Path) -> dict[str, Path]:
    """Scene name → folder, of ``root`` itself or of the sequences up to two folders below it."""
    root = Path(root).resolve()
    if not root.is_dir():
        raise FileNotFoundError(f'{root}: no such folder')
    if find_layout(root) is not None:
        return {validate_scene_name(root.name): root}

    for pattern in ('*', '*/*'):
        folders = sorted(path for path in root.glob(pattern) if path.is_dir())
        found = [path for path in folders if find_layout(path) is not None]
        if found:
            return {
                validate_scene_name('_'.join(path.relative_to(root).parts)): path for path in found
            }
    raise FileNotFoundError(
        f'{root}: no posed RGB-D frames here or up to two folders below; expected '
        f'{LAYOUTS_IN_WORDS}'
    )
