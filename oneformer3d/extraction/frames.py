"""Which frames an extraction reads, in what batches, and how an image is decoded.

Enters: a data root in the layout of docs/data.md, perhaps a list of scenes. Leaves: frames in a
fixed order, batches of them, and (H, W, 3) uint8 images at the encoder's input size.

Batches are cut once, from the whole list, and dealt out whole: whichever rank computes a batch,
and after however many interruptions, the same images go through the encoder together. A frame's
features therefore are the same bytes however the work was shared out.
"""

import zlib
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from oneformer3d.data.scenes import Frame, find_data_root, read_scene_list, read_scenes

from .settings import ExtractionSettings

_T = TypeVar('_T')


def list_frames(settings: ExtractionSettings) -> list[Frame]:
    """The frames that the settings name, scene by scene.

    Raises:
        FileNotFoundError: no scenes file, or no infos in the data root.
        ValueError: scenes that the infos do not have (all are named), or scenes without images.
    """
    root = find_data_root(settings.scenes_file, settings.data_root)
    names = None if settings.scenes_file is None else read_scene_list(settings.scenes_file)
    scenes = read_scenes(root, names=names)
    frames = [
        frame
        for scene in scenes.values()
        for frame in select_frames(
            scene.frames,
            settings.frames_per_scene,
            settings.frame_select,
            zlib.crc32(scene.name.encode()) ^ settings.seed,
        )
    ]
    if not frames:
        raise ValueError(f'{root}: its {len(scenes)} scenes have no images')
    return frames


def select_frames(images: Sequence[_T], count: int, how: str, seed: int = 0) -> list[_T]:
    """``count`` of the images in their order: the first, evenly spread, or drawn; 0 takes all."""
    if count == 0 or count >= len(images):
        return list(images)
    if how == 'uniform':
        chosen = np.linspace(0, len(images) - 1, count).round().astype(int)
    elif how == 'random':
        chosen = np.sort(np.random.default_rng(seed).choice(len(images), count, replace=False))
    else:
        chosen = np.arange(count)
    return [images[int(index)] for index in chosen]


def cut_batches(frames: Sequence[Frame], batch_size: int) -> list[list[Frame]]:
    """The frames in batches; the same for every rank and every run."""
    return [list(frames[i : i + batch_size]) for i in range(0, len(frames), batch_size)]
