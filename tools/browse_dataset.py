"""Draw samples of a config as its model receives them, after augmentation.

python tools/browse_dataset.py configs/oneformer3d_synthetic.py --output-dir pictures/
python tools/browse_dataset.py CONFIG --split val --num 8 --data-root DIR

OUTPUT_DIR/SPLIT_0000_SCENE.png shows colours, classes and instances of the points, and below them
its views, if the config loads any: the points that each sees, as dots in the colour of
their class, on its image where images are loaded. No display is needed.
"""

import argparse
from pathlib import Path

from oneformer3d.engine.cli import (
    ToolParser,
    add_config_options,
    add_folder_arguments,
    folder_options,
    run_tool,
)
from oneformer3d.engine.progress import show_progress


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = ToolParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('--output-dir', type=Path, help='(default: work_dirs/browse/NAME)')
    parser.add_argument('--split', choices=('train', 'val', 'test'), default='train')
    parser.add_argument('--num', type=int, default=4, help='how many samples (%(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='of the augmentation (%(default)s)')
    add_folder_arguments(parser)
    add_config_options(parser)
    args = parser.parse_args(argv)
    if args.num < 1 or args.seed < 0:
        parser.error('--num must be at least 1, --seed at least 0')
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    from oneformer3d.engine.browse import open_split, sample_pictures
    from oneformer3d.engine.configs import load_config, read_values
    from oneformer3d.files.images import write_png

    options = {**folder_options(args), **read_values(args.cfg_options)}
    dataset = open_split(load_config(args.config, options), args.split)
    out = args.output_dir or Path('work_dirs/browse') / Path(args.config).stem
    out.mkdir(parents=True, exist_ok=True)

    for done, (name, picture) in enumerate(sample_pictures(dataset, args.num, args.seed)):
        write_png(out / f'{args.split}_{name}.png', picture)
        show_progress('draw', done + 1, args.num)
    print(f'{args.num} pictures: {out}')


if __name__ == '__main__':
    run_tool(main)
