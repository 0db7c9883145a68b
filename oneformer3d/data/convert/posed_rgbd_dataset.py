"""Folders of posed RGB-D frames to a data root: points, superpoints and views, no labels.

Enters: one sequence, or a folder of sequences, in any of the ``layouts``. Leaves: scenes in the
layout of docs/data.md and ``oneformer3d_infos_<split>.json``, turned so that z is up, and a line
about every sequence: converted, there already, or not understood.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mmengine.logging import MMLogger
from numpy.typing import NDArray
from tqdm import tqdm

from oneformer3d.files.left_out import LossRules
from oneformer3d.files.names import safe_scene_name, validate_scene_name

from ..doctor.frames import source_frames
from ..doctor.quick import quick_check
from ..fuse_rgbd import fuse_posed_rgbd
from ..layouts import LAYOUTS, PosedFrame
from ..layouts.cameras import parse_intrinsics
from ..layouts.common import common_camera
from ..layouts.find import MAX_DEPTH, list_folder
from ..layouts.listing import describe_contents
from ..layouts.pixels import COLOR_SUFFIXES, DEPTH_SUFFIXES
from ..layouts.records import Matrix
from ..posed_rgbd import load_posed_rgbd, warn
from ..superpoints import superpoints_from_points
from ..upright import refine_up, rotation_to_z_up, up_from_axis, up_from_cameras
from .conversion import (
    Record,
    convert_and_record,
    finished_entry,
    view_writer,
    write_cloud,
    write_split,
)
from .frame_views import add_frame, finish_views

_RULES = LossRules()


@dataclass(frozen=True)
class SequenceOptions:
    """How sequences are read.

    Attributes:
        voxel_size, max_depth: metres, see ``fuse_posed_rgbd``.
        frame_step: take every so many-th frame.
        up: axis of the poses' world that points up, or 'auto': as the cameras were held, made
            exact by the floor and the table tops. Points and poses are turned alike.
        convention, depth_scale, intrinsics: what the user knows better than the folder, see
            ``layouts.find_layout``.
        rules: how many frames may be unusable.
    """

    voxel_size: float = 0.03
    max_depth: float = 5.0
    frame_step: int = 1
    up: str = 'auto'
    convention: str | None = None
    depth_scale: float | None = None
    intrinsics: Matrix | None = None
    rules: LossRules = _RULES

    def recorded(self) -> Record:
        """What decides how a scene comes out, as JSON values."""
        stated = {
            'convention': self.convention,
            'depth_scale': self.depth_scale,
            'intrinsics': None if self.intrinsics is None else self.intrinsics.tolist(),
        }
        return {
            'converter': 'posed_rgbd',
            'voxel_size': self.voxel_size,
            'max_depth': self.max_depth,
            'frame_step': self.frame_step,
            'up': self.up,
        } | {key: value for key, value in stated.items() if value is not None}


def convert_posed_rgbd(
    root: str | Path,
    out: str | Path,
    *,
    split: str = 'test',
    voxel_size: float = 0.03,
    max_depth: float = 5.0,
    frame_step: int = 1,
    up: str = 'auto',
    convention: str | None = None,
    depth_scale: float | None = None,
    intrinsics: str | Path | Matrix | None = None,
    rules: LossRules = _RULES,
    scene_name: str | None = None,
    progress: bool = True,
) -> int:
    """Convert a sequence, or all sequences up to four folders below ``root``.

    A sequence that cannot be converted is warned about and the others go on.

    Args:
        root: sequence or folder of sequences.
        out: data root.
        split: name of the infos.
        voxel_size, max_depth, frame_step, up, convention, depth_scale, intrinsics, rules: see
            ``SequenceOptions``.
        scene_name: of a single sequence; None makes one of its folder's name.
        progress: show a progress bar.

    Returns:
        Number of scenes in the infos.

    Raises:
        FileNotFoundError, ValueError: nothing can be converted, or with strict rules something
            can not; says what and why.
    """
    validate_scene_name(split)
    stated = None if intrinsics is None else parse_intrinsics(intrinsics)
    options = SequenceOptions(
        voxel_size, max_depth, frame_step, up, convention, depth_scale, stated, rules
    )
    sequences, not_understood = find_sequences(root)
    if scene_name is not None:
        if len(sequences) != 1:
            raise ValueError(f'{root}: scene_name is for one sequence, found {len(sequences)}')
        sequences = {validate_scene_name(scene_name): next(iter(sequences.values()))}

    log, entries = MMLogger.get_current_instance(), []
    fault: Exception | None = None
    warn([f'{path}: not understood: {reason}' for path, reason in not_understood.items()], rules)
    single = len(sequences) == 1
    for scene, folder in tqdm(sequences.items(), unit='scene', disable=single or not progress):
        try:
            entry = finished_entry(out, scene, options.recorded())
            was_there = entry is not None
            entries.append(
                entry
                or convert_and_record(
                    out,
                    scene,
                    lambda name, folder=folder: convert_sequence(
                        folder, out, name, options, progress and single
                    ),
                    options.recorded(),
                )
            )
        except (ValueError, FileNotFoundError) as error:
            if rules.strict or single:
                raise
            log.warning(f'{folder}: not converted: {error}')
            fault = error
            continue
        log.info('%s: %s', folder, 'there already' if was_there else f'converted to {scene}')
    if fault is not None and not entries:
        raise fault
    write_split(out, split, None, entries)
    return len(entries)


def convert_sequence(
    folder: Path, out: str | Path, scene: str, options: SequenceOptions, progress: bool = False
) -> Record:
    """Convert one sequence; return its entry of the infos."""
    sequence = load_posed_rgbd(
        folder,
        options.frame_step,
        convention=options.convention,
        depth_scale=options.depth_scale,
        intrinsics=options.intrinsics,
        rules=options.rules,
    )
    contradiction = quick_check(source_frames(sequence), str(folder))
    if contradiction is not None:
        warn([contradiction], options.rules)

    common, names = common_camera(sequence.frames), _scene_names(sequence.frames)
    upright_from_world = np.eye(4)
    with view_writer(out, scene) as views:

        def add(frame: PosedFrame, color: NDArray, depth: NDArray | None) -> None:
            name, pose = names[frame.name], frame.world_from_cam
            add_frame(views, common, name, pose, frame, color, depth)

        scan = fuse_posed_rgbd(
            sequence,
            options.voxel_size,
            max_depth=options.max_depth,
            progress=progress,
            on_frame=add,
            rules=options.rules,
        )
        poses = np.stack([frame.world_from_cam for frame in scan.frames])
        upright_from_world[:3, :3] = rotation_to_z_up(find_up(scan.points, poses, options.up))
        views.move(upright_from_world)
        about_images = finish_views(views, common, sequence.num_dropped_poses)

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


def find_sequences(root: str | Path) -> tuple[dict[str, Path], dict[Path, str]]:
    """Sequences of ``root`` or up to four folders below it, and folders that are none.

    Returns:
        Scene name → folder; and folder with images that is in no layout → why.

    Raises:
        FileNotFoundError: no such folder, or no sequence there: says what was found.
    """
    root = Path(root).resolve()
    if not root.is_dir():
        raise FileNotFoundError(f'{root}: no such folder')
    found, not_understood = {}, {}
    for folder, fault in _walk(root, MAX_DEPTH):
        if fault is None:
            parts = folder.relative_to(root).parts or (root.name,)
            found[_unused(safe_scene_name('_'.join(parts)), found)] = folder
        else:
            not_understood[folder] = fault

    if not found:
        looked = '; '.join(f'{path}: {why}' for path, why in list(not_understood.items())[:3])
        raise FileNotFoundError(
            f'{root}: no posed RGB-D frames here or up to four folders below; found there: '
            f'{looked or describe_contents(root)}; expected one of: {"; ".join(LAYOUTS)}'
        )
    return found, not_understood


def _walk(folder: Path, depth: int) -> Iterator[tuple[Path, str | None]]:
    """Folders that hold a sequence (None), or images in no layout (the reason)."""
    try:
        if list_folder(folder) is not None:
            yield folder, None
            return
    except ValueError as error:
        yield folder, str(error)
        return
    inner = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith('.'))
    below = [found for path in inner for found in _walk(path, depth - 1)] if depth else []

    # folders of images inside one that is not understood are told with it
    sequences = [path for path, fault in below if fault is None]
    if sequences or (below and not _has_images(folder) and not _is_one_recording(inner)):
        yield from below
    elif below or _has_images(folder):
        yield folder, f'found there: {describe_contents(folder)}'


def _has_images(folder: Path) -> bool:
    suffixes = (*COLOR_SUFFIXES, *DEPTH_SUFFIXES)
    return any(path.suffix.lower() in suffixes for path in folder.iterdir() if path.is_file())


def _is_one_recording(folders: list[Path]) -> bool:
    """Whether folders beside each other hold the images of one recording by their names."""
    roles = ('color', 'rgb', 'image', 'depth')
    return any(role in path.name.lower() for path in folders for role in roles)


def _unused(name: str, taken: Mapping[str, Path]) -> str:
    """The name, with a number if it is taken."""
    number = 2
    unused = name
    while unused in taken:
        unused, number = f'{name[:120]}_{number}', number + 1
    return unused


def _scene_names(frames: tuple[PosedFrame, ...]) -> dict[str, str]:
    """Names of frames → safe ones, different from each other."""
    safe: dict[str, Path] = {}
    names = {}
    for frame in frames:
        names[frame.name] = _unused(safe_scene_name(frame.name), safe)
        safe[names[frame.name]] = frame.image_path
    return names
