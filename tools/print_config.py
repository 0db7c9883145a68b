"""Print a config as a run would use it: with its bases, and with the options of the command line.

python tools/print_config.py configs/bifusion_synthetic.py
python tools/print_config.py CONFIG --data-root DIR --cfg-options train_cfg.max_epochs=3
"""

import argparse

from oneformer3d.engine.cli import (
    ToolParser,
    add_config_options,
    add_folder_arguments,
    folder_options,
    run_tool,
)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = ToolParser(description=__doc__)
    parser.add_argument('config', help='config file')
    add_folder_arguments(parser)
    add_config_options(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    from oneformer3d.engine.configs import load_config, read_values

    options = {**folder_options(args), **read_values(args.cfg_options)}
    print(load_config(args.config, options).pretty_text)


if __name__ == '__main__':
    run_tool(main)
