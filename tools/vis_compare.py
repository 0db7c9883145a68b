"""Show side by side what several models see in a scene, and where each of them is wrong.

    python tools/test.py CONFIG_A CHECKPOINT_A --show-dir pictures/a
    python tools/test.py CONFIG_B CHECKPOINT_B --show-dir pictures/b
    python tools/vis_compare.py points=pictures/a images=pictures/b --out compare.png

Reads the clouds that tools/test.py --show-dir leaves (with ground truth) and writes one picture.
"""

import argparse
from pathlib import Path

from oneformer3d.engine.cli import ToolParser, run_tool


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = ToolParser(description=__doc__)
    parser.add_argument('runs', nargs='+', metavar='TITLE=FOLDER', help='of tools/test.py')
    parser.add_argument('--scene', help='name of the scene (default: the first that all have)')
    parser.add_argument('--class-table', default='synthetic', help='(%(default)s)')
    parser.add_argument('--out', type=Path, default=Path('compare.png'), help='(%(default)s)')
    parser.add_argument('--size', type=int, nargs=2, default=(480, 640), metavar=('H', 'W'))
    return parser.parse_args(argv)


if __name__ == '__main__':
    run_tool(parse_args)  # help and wrong arguments are answered before anything heavy is imported

import numpy as np

from oneformer3d.data.class_tables import get_class_table
from oneformer3d.files.images import write_png
from oneformer3d.files.names import validate_scene_name
from oneformer3d.files.ply import read_ply_vertices
from oneformer3d.visualization.figure import comparison_figure


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    folders = dict(named_folder(text) for text in args.runs)
    if len(folders) < len(args.runs):
        raise ValueError('two runs have the same title')
    scene = validate_scene_name(args.scene or first_common_scene(list(folders.values())))
    table = get_class_table(args.class_table)
    predictions, xyz, truth = {}, None, None
    for title, folder in folders.items():
        found = read_run(folder / f'{scene}.ply')
        if xyz is not None and not (np.array_equal(xyz, found[0]) and (truth == found[2]).all()):
            raise ValueError(f'{folder / scene}.ply: other points or ground truth than the first')
        xyz, predictions[title], truth = found
    image = comparison_figure(
        xyz, predictions, truth, table.classes, table.palette, tuple(args.size)
    )
    write_png(args.out, image)
    print(f'{args.out}: {scene}, {len(xyz)} points, {len(predictions)} models')


def named_folder(text: str) -> tuple[str, Path]:
    title, separator, folder = text.partition('=')
    if not (title and separator and Path(folder).is_dir()):
        raise ValueError(f'{text}: expected TITLE=FOLDER with a folder that is there')
    return title, Path(folder)


def first_common_scene(folders: list[Path]) -> str:
    names = [{path.stem for path in folder.glob('*.ply')} for folder in folders]
    common = sorted(set.intersection(*names))
    if not common:
        raise ValueError(f'{", ".join(map(str, folders))}: no scene that all of them have')
    return common[0]


def read_run(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points (N, 3), predicted and true classes (N,)."""
    vertices = read_ply_vertices(path)
    absent = [name for name in ('semantic', 'gt_semantic') if name not in vertices.dtype.names]
    if absent:
        raise ValueError(f'{path}: has no {" and no ".join(absent)}')
    xyz = np.stack([vertices[axis] for axis in 'xyz'], axis=1)
    return xyz, vertices['semantic'], vertices['gt_semantic']


if __name__ == '__main__':
    run_tool(main)
