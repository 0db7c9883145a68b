"""Looking after stores: verifying all of one, merging several.

Enters: stores' folders. Leaves: one sentence per fault, or one store with everything.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from mmengine.logging import print_log

from .index import check_shard_stamp
from .lock import StoreLockedError, WriterLock
from .manifest import read_manifest
from .reader import FeatureStore
from .record import (
    SCHEMA_VERSION,
    CorruptRecordError,
    current_record,
    decode_record,
    record_checksum,
    split_key,
)
from .shard import ShardFile, shard_file, structural_problems
from .writer import FeatureStoreWriter


def verify_store(path: str | os.PathLike, on_record: Callable[[], None] | None = None) -> list[str]:
    """Check a store completely: structure first, then stamp, names, checksums, doubles.

    No shard is opened with LMDB before its structure was found whole by a reader of plain
    bytes, so this is safe for files from elsewhere.

    Args:
        path: the store's folder.
        on_record: called after each record.

    Returns:
        One sentence per fault; empty for a good store.

    Example:
        >>> from oneformer3d.store.examples import example_store
        >>> verify_store(example_store())
        []
    """
    folder = Path(path)
    FeatureStore(path)  # an export cannot be verified
    manifest = read_manifest(path)
    unlisted = {found.name for found in folder.glob('features.*.lmdb')} - set(manifest.shards)
    problems = [f'{folder / name}: not in the manifest' for name in sorted(unlisted)]

    first_with: dict[bytes, tuple[int, ShardFile]] = {}
    for name in manifest.shards:
        faults = _shard_problems(folder / name)
        problems += faults
        if faults:
            continue

        shard = shard_file(folder / name)
        try:
            check_shard_stamp(shard, manifest)
            problems += _record_problems(shard, first_with, on_record)
        except ValueError as error:
            problems.append(str(error))
    return problems


def merge_stores(
    paths: Sequence[str | os.PathLike],
    out: str | os.PathLike,
    skip_damaged: bool = False,
    on_record: Callable[[], None] | None = None,
) -> int:
    """Copy stores of one encoder into one shard; can be run again after it was interrupted.

    Args:
        paths: stores of any version; none may be ``out``.
        out: the store to make or to add to.
        skip_damaged: leave out records with a wrong checksum instead of stopping there.
        on_record: called after each record.

    Returns:
        Number of records that were new in ``out``.

    Raises:
        StampMismatchError: two stores come from different encoders; nothing is written.
        StoreLockedError: one of them is being written.
        ValueError: a shard is damaged, or one key has different content in two stores.

    Example:
        >>> from oneformer3d.store.examples import example_store
        >>> small, large = example_store(num_frames=1), example_store(num_frames=3)
        >>> merge_stores([large], small), len(FeatureStore(small))
        (2, 3)
    """
    if not paths:
        raise ValueError('nothing to merge')
    if Path(out).resolve() in {Path(path).resolve() for path in paths}:
        raise ValueError(f'{out}: is one of the stores to merge')

    stamp = replace(read_manifest(paths[0]).stamp, schema_version=SCHEMA_VERSION)
    stores = [FeatureStore(path, expected_stamp=stamp) for path in paths]
    for path in paths:
        require_sound(path)

    num_new = 0
    with FeatureStoreWriter(out, stamp) as writer:
        for store in stores:
            for key, record, source in store.records():
                try:
                    arrays = decode_record(key, record, source)
                except CorruptRecordError as error:
                    if not skip_damaged:
                        raise
                    print_log(f'left out: {error}', logger='current')
                else:
                    num_new += writer.put(*split_key(key), arrays)
                if on_record is not None:
                    on_record()
    return num_new


def require_sound(path: str | os.PathLike) -> None:
    """Check that every shard is closed and may be opened.

    Raises:
        StoreLockedError: a shard is being written.
        ValueError: a shard's structure is damaged; names it.

    Example:
        >>> from oneformer3d.store.examples import example_store
        >>> require_sound(example_store())
    """
    shards = [Path(path) / name for name in read_manifest(path).shards]
    for shard in shards:
        holder = WriterLock(shard).holder()
        if holder is not None:
            raise StoreLockedError(_busy(shard, holder))

    for shard in shards:
        problems = _shard_problems(shard)
        if problems:
            raise ValueError(problems[0])


def _busy(shard: Path, holder: str) -> str:
    return f'{shard}: being written by {holder}; come back when it is done'


def _shard_problems(path: Path) -> list[str]:
    if not path.is_file():
        return [f'{path}: no such shard']
    holder = WriterLock(path).holder()
    if holder is not None:
        return [_busy(path, holder)]
    return [f'{path}: {problem}' for problem in structural_problems(path)]


def _record_problems(
    shard: ShardFile,
    first_with: dict[bytes, tuple[int, ShardFile]],
    on_record: Callable[[], None] | None,
) -> list[str]:
    """Faults of a shard's records; ``first_with`` knows the records of the shards before."""
    problems = []
    for key, record in shard.items():
        try:
            split_key(key)
            decode_record(key, record, str(shard.path))
            checksum, first = first_with.setdefault(key, (record_checksum(record), shard))
            # two writers may both have a record, and then it must be the same
            if checksum != record_checksum(record) and not _same(key, record, shard, first):
                problems.append(
                    f'{shard.path}: {key.decode()} is in {first.path.name} too, with other content'
                )
        except ValueError as error:
            problems.append(str(error))
        if on_record is not None:
            on_record()
    return problems


def _same(key: bytes, record: bytes, shard: ShardFile, first: ShardFile) -> bool:
    """Whether two records hold the same arrays, of whichever versions they are."""
    earlier = current_record(key, first.read(key) or b'', str(first.path))
    return current_record(key, record, str(shard.path)) == earlier
