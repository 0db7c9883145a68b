"""The manifest of a store: which shards belong to it and which encoder made them.

Enters: a store's folder. Leaves: a checked ``Manifest``. The file ``manifest.json`` is replaced
as a whole, under a lock, so several writers may join one store at the same time.
"""

import fcntl
import json
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from oneformer3d.files.atomic import atomic_write_bytes

from .stamp import StoreStamp, check_stamp, stamp_from_dict

MANIFEST_NAME = 'manifest.json'
FORMATS = ('lmdb', 'npz', 'h5')
_KIND = 'oneformer3d feature store'
_SHARD_NAME = re.compile(r'features\.r\d{4}\.(lmdb|h5)')
_THREADS = threading.Lock()  # file locks do not keep threads of one process apart


@dataclass(frozen=True)
class Manifest:
    """What ``manifest.json`` says.

    Attributes:
        stamp: the encoder that made every record.
        shards: file names inside the store's folder, in the order they joined.
        format: ``lmdb`` for a store; of exports ``npz`` (no shards: one file per frame) or ``h5``.
    """

    stamp: StoreStamp
    shards: tuple[str, ...] = ()
    format: str = 'lmdb'


def shard_name(rank: int, suffix: str = 'lmdb') -> str:
    """File name of a writer's shard.

    Raises:
        ValueError: rank outside 0…9999.

    Example:
        >>> shard_name(3)
        'features.r0003.lmdb'
    """
    if not 0 <= rank <= 9999:
        raise ValueError(f'rank {rank}: expected 0 to 9999')
    return f'features.r{rank:04d}.{suffix}'


def read_manifest(folder: str | os.PathLike) -> Manifest:
    """Read and check a store's manifest.

    Raises:
        FileNotFoundError: no store there.
        ValueError: not a manifest; names the file and the fault.

    Example:
        >>> from oneformer3d.store.examples import example_store
        >>> manifest = read_manifest(example_store())
        >>> manifest.format, manifest.shards, manifest.stamp.encoder
        ('lmdb', ('features.r0000.lmdb',), 'ViT-B-16')
    """
    path = Path(folder) / MANIFEST_NAME
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such file; {folder} is not a feature store')

    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except (ValueError, RecursionError) as error:
        raise ValueError(f'{path}: not valid JSON: {error}') from error
    if not isinstance(content, dict) or content.get('kind') != _KIND:
        raise ValueError(f'{path}: not the manifest of a feature store')

    if content.get('format') not in FORMATS:
        raise ValueError(f'{path}: format {content.get("format")!r}, expected one of {FORMATS}')
    shards = content.get('shards')
    if not isinstance(shards, list) or not all(
        isinstance(name, str) and _SHARD_NAME.fullmatch(name) for name in shards
    ):
        raise ValueError(f'{path}: shards should be names like features.r0000.lmdb')
    if len(set(shards)) != len(shards):
        raise ValueError(f'{path}: a shard is named twice')

    stamp = stamp_from_dict(content.get('stamp'), source=str(path))
    return Manifest(stamp, tuple(shards), content['format'])


def require_format(folder: str | os.PathLike, manifest: Manifest, format: str = 'lmdb') -> None:
    """Raise ValueError unless a folder is of a format; of an export it names the way back.

    Example:
        >>> from oneformer3d.store.examples import STAMP
        >>> require_format('out', Manifest(STAMP, format='npz'), 'h5')
        Traceback (most recent call last):
        ValueError: out: is an export to npz, not h5
    """
    if manifest.format == format:
        return
    found = 'a store' if manifest.format == 'lmdb' else f'an export to {manifest.format}'
    needed = 'a store' if format == 'lmdb' else format
    hint = f'; made one by python tools/store.py import STORE {folder}' if format == 'lmdb' else ''
    raise ValueError(f'{folder}: is {found}, not {needed}{hint}')


def stamp_to_join(folder: str | os.PathLike, stamp: StoreStamp, format: str = 'lmdb') -> StoreStamp:
    """The stamp to write with in a folder: its own, else the given one. Writes nothing.

    Args:
        folder: of a store or an export, or where one is to be.
        stamp: what the writer's features come from.
        format: what the writer writes.

    Raises:
        StampMismatchError: the store there was made by another encoder.
        ValueError: what is there has another format.

    Example:
        >>> import tempfile
        >>> from oneformer3d.store.examples import STAMP
        >>> stamp_to_join(tempfile.mkdtemp(), STAMP) is STAMP
        True
    """
    if not (Path(folder) / MANIFEST_NAME).is_file():
        return stamp
    manifest = read_manifest(folder)
    require_format(folder, manifest, format)
    check_stamp(manifest.stamp, stamp, source=str(folder))
    return manifest.stamp


def join_manifest(
    folder: str | os.PathLike, stamp: StoreStamp, shard: str | None = None, format: str = 'lmdb'
) -> None:
    """Name a shard in the manifest, making the manifest if there is none.

    Args:
        folder, stamp, format: as for ``stamp_to_join``, which raises the same.
        shard: file name inside the folder; None for npz files, which no manifest names.

    Example:
        >>> import tempfile
        >>> from oneformer3d.store.examples import STAMP
        >>> folder = tempfile.mkdtemp()
        >>> join_manifest(folder, STAMP, shard_name(0))
        >>> read_manifest(folder).shards
        ('features.r0000.lmdb',)
    """
    folder = Path(folder)
    with _THREADS, folder_lock(folder, 'manifest.lock'):
        stamp = stamp_to_join(folder, stamp, format)
        exists = (folder / MANIFEST_NAME).is_file()
        shards = read_manifest(folder).shards if exists else ()
        joined = shards if shard is None or shard in shards else (*shards, shard)
        if exists and joined == shards:
            return

        content = {
            'kind': _KIND,
            'format': format,
            'shards': list(joined),
            'stamp': stamp.to_dict(),
        }
        text = json.dumps(content, indent=1) + '\n'
        atomic_write_bytes(folder / MANIFEST_NAME, text.encode('utf-8'))


@contextmanager
def folder_lock(folder: Path, name: str) -> Iterator[None]:
    """Wait until no other process has the lock, the file ``name`` in a folder, then hold it.

    Example:
        >>> import tempfile
        >>> with folder_lock(Path(tempfile.mkdtemp()), 'manifest.lock'):
        ...     print('alone here')
        alone here
    """
    descriptor = os.open(folder / name, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)  # which also gives the lock back


# A child must not be born with the lock held by a thread that it does not have.
os.register_at_fork(
    before=_THREADS.acquire, after_in_parent=_THREADS.release, after_in_child=_THREADS.release
)
