"""A dataset of synthetic rooms in the ScanNet layout.

Enters: a seed and counts. Leaves: a data root.

Each scene depends on the seed, the settings and its own name only, so the bytes do not depend on
the number of workers, and a run that was interrupted continues with the scenes that are missing.
"""

import json
import multiprocessing
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from multiprocessing.context import BaseContext
from pathlib import Path

import cv2
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from oneformer3d.files.atomic import atomic_write_bytes

from ..infos import write_infos
from .files import is_complete, scene_info, write_scan
from .scan import generate_scene
from .scanned.scan import generate_scanned_scene
from .scanned.settings import ScannedSettings
from .settings import GENERATOR_VERSION, RoomSettings

FIRST_VAL_NUMBER = 5000
NUM_DEBUG_SCENES = 30
STAMP_PATH = 'meta_data/synthetic_settings.json'

AnySettings = RoomSettings | ScannedSettings


@dataclass(frozen=True)
class DatasetSummary:
    """What a run did: scenes in the set, scenes made now, points in all scenes, seconds."""

    num_scenes: int
    num_generated: int
    num_points: int
    seconds: float


def generate_dataset(
    out: str | os.PathLike,
    num_train: int,
    num_val: int,
    seed: int,
    num_workers: int | None = None,
    progress: bool = True,
    settings: AnySettings | None = None,
    realism: str = 'plain',
) -> DatasetSummary:
    """Make a dataset of synthetic rooms, or complete one.

    *plain* rooms (class table ``synthetic``) are clean samples of surfaces; *scanned* ones (class
    table ``rooms``) are recorded with a noisy camera and fused as the inferencer fuses a scan.

    Writes the scenes (see ``files.py``), ``oneformer3d_infos_{train,val}.json``,
    ``meta_data/synthetic_{train,val,train_debug}.txt`` and the settings they were made with.

    Args:
        out: data root, made if missing.
        num_train, num_val: scenes per split; more can be added later.
        seed: not negative.
        num_workers: processes; None = one per core.
        settings: sizes, counts and noise of the rooms; None takes those of the realism.
        realism: 'plain' or 'scanned'; settings that are given must be of that kind.

    Returns:
        Counts and time.

    Raises:
        ValueError: bad arguments, or ``out`` holds other data.
        RuntimeError: A worker process died.
    """
    if num_train < 0 or num_val < 0 or num_train + num_val == 0 or seed < 0:
        raise ValueError(
            f'expected num_train and num_val of 0 or more, one positive, and a seed of 0 or more, '
            f'got {num_train}, {num_val} and {seed}'
        )
    if max(num_train, num_val) > FIRST_VAL_NUMBER:
        raise ValueError(
            f'expected at most {FIRST_VAL_NUMBER} scenes per split, got {max(num_train, num_val)}'
        )
    if num_workers is not None and num_workers < 1:
        raise ValueError(f'num_workers: expected 1 or more, got {num_workers}')

    start = time.perf_counter()
    root = Path(out)
    settings = settings_of(realism, settings)
    stamp_settings(root, seed, settings)
    splits = {
        'train': [f'room{number:04d}_00' for number in range(num_train)],
        'val': [f'room{FIRST_VAL_NUMBER + number:04d}_00' for number in range(num_val)],
    }
    scenes = splits['train'] + splits['val']

    missing = [scene for scene in scenes if not is_complete(root, scene)]
    finished = make_scenes(root, missing, seed, settings, num_workers or os.cpu_count() or 1)
    for _ in tqdm(finished, total=len(missing), desc='rooms', unit='room', disable=not progress):
        pass

    write_splits(root, splits, settings)
    sizes = [(root / 'points' / f'{scene}.bin').stat().st_size for scene in scenes]
    return DatasetSummary(
        num_scenes=len(scenes),
        num_generated=len(missing),
        num_points=sum(sizes) // (6 * 4),
        seconds=time.perf_counter() - start,
    )


def settings_of(realism: str, settings: AnySettings | None) -> AnySettings:
    """The default settings of a realism, or those given.

    Raises:
        ValueError: unknown realism, or settings of the other.
    """
    kinds: dict[str, type[AnySettings]] = {'plain': RoomSettings, 'scanned': ScannedSettings}
    if realism not in kinds:
        raise ValueError(f"realism: expected 'plain' or 'scanned', got {realism!r}")
    if settings is None:
        return kinds[realism]()
    if not isinstance(settings, kinds[realism]):
        raise ValueError(
            f'{realism} rooms are made with {kinds[realism].__name__}, got '
            f'{type(settings).__name__}'
        )
    return settings


def stamp_settings(root: Path, seed: int, settings: AnySettings) -> None:
    """Write what a set is made with into its root, or compare with what is there.

    Raises:
        ValueError: the root holds a set of another seed or other settings, or another dataset.
    """
    if root.exists() and not root.is_dir():
        raise ValueError(f'{root}: expected a folder')
    stamp = {'generator_version': GENERATOR_VERSION, 'seed': seed, **asdict(settings)}
    if isinstance(settings, ScannedSettings):  # plain sets carry no such mark
        stamp['realism'] = 'scanned'
    stamp = json.loads(json.dumps(stamp))  # as it reads back: tuples are lists
    path = root / STAMP_PATH

    if not path.exists():
        if (root / 'points').exists():
            raise ValueError(
                f'{root}: holds point clouds not made by this generator, choose another'
            )
        atomic_write_bytes(path, json.dumps(stamp, indent=1).encode() + b'\n')
        return

    try:
        found = json.loads(path.read_text(encoding='utf-8'))
    except ValueError as error:
        raise ValueError(f'{path}: not JSON ({error})') from None
    if not isinstance(found, dict):
        raise ValueError(f'{path}: expected a JSON object, got {type(found).__name__}')
    different = [key for key in stamp | found if stamp.get(key) != found.get(key)]
    if different:
        key = different[0]
        raise ValueError(
            f'{root}: holds rooms made with {key} {found.get(key)}, asked for {stamp.get(key)}; '
            'choose another folder or remove it'
        )


def make_scenes(
    root: Path, scenes: list[str], seed: int, settings: AnySettings, num_workers: int
) -> Iterator[str]:
    """Make scenes, in this process for one worker, else in several; yield names as they finish.

    Raises:
        RuntimeError: A worker process died.
    """
    num_workers = min(num_workers, len(scenes))
    if num_workers <= 1:
        for scene in scenes:
            yield make_scene(root, scene, seed, settings)
        return

    with ProcessPoolExecutor(num_workers, mp_context=worker_context()) as pool:
        futures = [pool.submit(make_scene, root, scene, seed, settings) for scene in scenes]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            raise RuntimeError(
                f'{root}: a worker process died (out of memory?); run again to continue'
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def worker_context() -> BaseContext:
    """Start method that copies no threads: a fork server that imports once, else spawn."""
    if 'forkserver' not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context('spawn')
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload([__name__])
    return context


def make_scene(root: Path, scene: str, seed: int, settings: AnySettings) -> str:
    """Make and write one scene; return its name.

    Args:
        seed: seed of the set.

    Returns:
        The scene's name.
    """
    cv2.setNumThreads(1)
    with threadpool_limits(limits=1):  # the scenes are what runs in parallel
        if isinstance(settings, ScannedSettings):
            scan = generate_scanned_scene(seed, settings, scene)
        else:
            scan = generate_scene(seed, settings, scene)
    write_scan(root, scene, scan, settings.jpeg_quality)
    return scene


def write_splits(root: Path, splits: dict[str, list[str]], settings: AnySettings) -> None:
    """Write scene lists and infos of written scenes.

    Args:
        splits: scene names of 'train' and 'val'.
    """
    lists = {**splits, 'train_debug': splits['train'][:NUM_DEBUG_SCENES]}
    for split, scenes in lists.items():
        text = ''.join(f'{scene}\n' for scene in scenes)
        atomic_write_bytes(root / 'meta_data' / f'synthetic_{split}.txt', text.encode())
    table = 'rooms' if isinstance(settings, ScannedSettings) else 'synthetic'
    for split, scenes in splits.items():
        infos = {
            'metainfo': {'schema_version': 1, 'dataset': table},
            'data_list': [scene_info(root, scene, settings.image_size) for scene in scenes],
        }
        write_infos(root / f'oneformer3d_infos_{split}.json', infos)
