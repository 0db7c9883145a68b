"""A store whose cells are read as they are stored, as networks did before tokens were taken back.

Enters: a store of maps (C, h, w) that went through the pixel shuffle. Leaves: another with the same
arrays, whose stamp does not tell of the shuffle, so that no reader undoes it. Only tables need it,
to say what undoing is worth.

    python -m oneformer3d.experiments.shuffled_cells FEATURES OUT
"""

import os
from dataclasses import replace
from pathlib import Path

from oneformer3d.engine.cli import ToolParser, run_tool
from oneformer3d.store.reader import FeatureStore
from oneformer3d.store.record import split_key
from oneformer3d.store.writer import FeatureStoreWriter


def copy_as_cells(path: str | os.PathLike, out: str | os.PathLike) -> int:
    """Write the store at ``out``; can be run again.

    Returns:
        Number of frames that were not there before.

    Raises:
        FileNotFoundError: no store at ``path``.
        ValueError: its maps were not shuffled.
    """
    store = FeatureStore(path)
    if store.stamp.shuffle_factor == 1:
        raise ValueError(f'{path}: the maps went through no pixel shuffle')

    stamp = replace(store.stamp, postprocessing='shuffled cells, as they are')
    with FeatureStoreWriter(out, stamp) as writer:
        return sum(writer.put(*split_key(key), arrays) for key, arrays in store.items())


def main() -> None:
    parser = ToolParser(description=__doc__)
    parser.add_argument('features', type=Path, help='store of shuffled maps')
    parser.add_argument('out', type=Path, help='store to write')
    args = parser.parse_args()
    copy_as_cells(args.features, args.out)


if __name__ == '__main__':
    run_tool(main)
