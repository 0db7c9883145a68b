"""Look after feature stores: check, count, merge, export and import them.

python tools/store.py verify STORE
python tools/store.py stats STORE [--json]
python tools/store.py merge OUT STORE [STORE ...] [--skip-damaged]
python tools/store.py export STORE OUT --format npz
python tools/store.py import STORE EXPORT [EXPORT ...]
python tools/store.py import-chunks STORE CHUNKS --scene ROOM --encoder dino --transforms FILE

``verify`` checks the structure of every shard without opening it, then every record; run it on
stores that come from elsewhere. ``merge``, ``export`` and ``import`` can be run again after an
interruption. A store of version 1 is read as it is, and ``merge`` writes it as version 2.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from oneformer3d.engine.cli import ToolParser, run_tool


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = ToolParser(description=__doc__)
    commands = parser.add_subparsers(dest='command', required=True)

    verify = commands.add_parser('verify', help='check structure, stamps and every record')
    verify.add_argument('store', help='folder of the store')

    stats = commands.add_parser('stats', help='count records, scenes and bytes')
    stats.add_argument('store', help='folder of the store')
    stats.add_argument('--json', action='store_true', help='print JSON instead of a table')

    merge = commands.add_parser('merge', help='copy stores of one encoder into one shard')
    merge.add_argument('out', help='folder of the store to make or to add to')
    merge.add_argument('stores', nargs='+', help='folders of the stores to copy')
    merge.add_argument(
        '--skip-damaged', action='store_true', help='leave out records with a wrong checksum'
    )

    export = commands.add_parser('export', help='copy a store to npz files or an HDF5 file')
    export.add_argument('store', help='folder of the store')
    export.add_argument('out', help='folder to export to')
    export.add_argument('--format', choices=('npz', 'h5'), required=True, help='what to write')

    back = commands.add_parser('import', help='make a store of npz files or HDF5 files')
    back.add_argument('out', help='folder of the store to make or to add to')
    back.add_argument('exports', nargs='+', help='folders of the exports')

    chunks = commands.add_parser('import-chunks', help="make a store of chunks as F3RM's forks do")
    chunks.add_argument('out', help='folder of the store to make or to add to')
    chunks.add_argument('chunks', help='folder with chunk_0000.npy and so on')
    chunks.add_argument('--scene', required=True, help='name of the scene in the store')
    chunks.add_argument('--encoder', required=True, help='what made them; nothing in them says it')
    order = chunks.add_mutually_exclusive_group(required=True)
    order.add_argument('--transforms', help='transforms.json that gave the order of the images')
    order.add_argument('--names', help='text file with the images in their order, one a line')
    return parser.parse_args(argv)


if __name__ == '__main__':
    run_tool(parse_args)  # help and wrong arguments are answered before anything heavy is imported

from tqdm import tqdm

from oneformer3d.store import FeatureStore, merge_stores, verify_store
from oneformer3d.store.chunks import import_chunks, names_of_transforms
from oneformer3d.store.export import export_h5, export_npz, import_store

SHOWN = 20  # problems or scenes that are listed one by one


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    runs = {
        'verify': run_verify,
        'stats': run_stats,
        'merge': run_merge,
        'export': run_export,
        'import': run_import,
        'import-chunks': run_import_chunks,
    }
    runs[args.command](args)


def run_verify(args: argparse.Namespace) -> None:
    with progress('verified') as advance:
        problems = verify_store(args.store, on_record=advance)
    for problem in problems[:SHOWN]:
        print(problem)
    if len(problems) > SHOWN:
        print(f'… and {len(problems) - SHOWN} more')
    if problems:
        raise ValueError(f'{args.store}: {len(problems)} problems')
    print(f'{args.store}: whole, {len(FeatureStore(args.store))} records')


def run_stats(args: argparse.Namespace) -> None:
    store = FeatureStore(args.store)
    stats = store.stats()
    if args.json:
        print(json.dumps({'stamp': store.stamp.to_dict(), **stats}, indent=1))
        return

    for name, value in store.stamp.to_dict().items():
        print(f'{name:16} {value}')
    print(f'{"records":16} {stats["records"]}, {megabytes(stats["record_bytes"])}')
    for name, counts in sorted(stats['shapes'].items()):
        for shape, count in counts.items():
            print(f'{"  " + name:16} {shape} × {count}')

    for shard in stats['shards']:
        size = megabytes(shard['file_bytes'])
        print(f'{shard["name"]:22} {shard["records"]} records, {size}')

    print(f'{"scenes":16} {len(stats["scenes"])}')
    for scene, count in list(stats['scenes'].items())[:SHOWN]:
        print(f'  {scene:20} {count} frames')
    if len(stats['scenes']) > SHOWN:
        print(f'  … and {len(stats["scenes"]) - SHOWN} more')


def run_merge(args: argparse.Namespace) -> None:
    with progress('read') as advance:
        num_new = merge_stores(args.stores, args.out, args.skip_damaged, on_record=advance)
    print(f'{args.out}: {num_new} new records, {len(FeatureStore(args.out))} in all')


def run_export(args: argparse.Namespace) -> None:
    with progress('exported') as advance:
        export = export_npz if args.format == 'npz' else export_h5
        num_new = export(args.store, args.out, on_record=advance)
    print(f'{args.out}: {num_new} new records')


def run_import(args: argparse.Namespace) -> None:
    with progress('imported') as advance:
        num_new = sum(import_store(path, args.out, on_record=advance) for path in args.exports)
    print(f'{args.out}: {num_new} new records, {len(FeatureStore(args.out))} in all')


def run_import_chunks(args: argparse.Namespace) -> None:
    if args.transforms is not None:
        names = names_of_transforms(args.transforms)
    else:
        names = Path(args.names).read_text(encoding='utf-8').split()
    with progress('imported') as advance:
        num_new = import_chunks(args.chunks, args.out, args.scene, names, args.encoder, advance)
    print(f'{args.out}: {num_new} new records, {len(FeatureStore(args.out))} in all')


@contextmanager
def progress(what: str) -> Iterator[Callable[[], object]]:
    with tqdm(desc=what, unit='record', delay=1) as bar:
        yield bar.update


def megabytes(num_bytes: int) -> str:
    return f'{num_bytes / 1e6:.1f} MB'


if __name__ == '__main__':
    run_tool(main)
