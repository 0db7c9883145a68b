"""Dense CLIP features of posed images, into a feature store.

    python tools/extract_clip_feat.py --data_root data/synthetic --output_dir outputs/clip_feat \
        --weights work_dirs/tiny_clip/tiny_clip.pth --resume

    python tools/extract_clip_feat.py --frames_per_scene 5 --vis 1 --dtype fp16 \
        --scenes_file data/scannet200-mv/meta_data/scannetv2_train_debug.txt \
        --output_dir outputs/clip_feat_debug

    python tools/extract_clip_feat.py data_root=data/mine layers=[9,11] mode=clip batch_size=32

    torchrun --nproc_per_node 4 tools/extract_clip_feat.py --data_root data/scannet --resume

The second also writes ``<scene>/frame_<idx>.npz`` (features at the points) and ``vis_<idx>.png``.
Defaults come from configs/clip_feat.yaml, which explains them; arguments win, written --name value
or name=value. Weights that are in no cache are downloaded, unless --offline. Interrupted runs go on
with --resume. docs/clip_features.md has the whole story.
"""

import argparse
import os
import re
import sys
from pathlib import Path
from typing import Any

from oneformer3d.engine.cli import USER_ERRORS, ToolParser, run_tool
from oneformer3d.extraction.settings import make_settings, setting_types, settings_of_words
from oneformer3d.files.yaml import read_yaml

REPOSITORY = Path(__file__).resolve().parents[1]

DEFAULTS = REPOSITORY / 'configs' / 'clip_feat.yaml'
WORD_OF_SETTING = re.compile(r'[a-z_]+=')


def parse_args(argv: list[str] | None = None) -> tuple[Path, dict[str, Any]]:
    """Config file, and the settings that were given as arguments."""
    parser = ToolParser(
        usage='%(prog)s [--config YAML] [--name value …] [name=value …]',
        description=__doc__,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    parser.add_argument('--config', type=Path, default=DEFAULTS, help='YAML (%(default)s)')

    parser.add_argument(
        '--offline', dest='allow_download', action='store_false', help='fetch no weights'
    )

    # every setting is an argument too, under its name and with dashes
    for name, kinds in setting_types().items():
        option = f'--{name.replace("_", "-")}'
        if bool in kinds:
            parser.add_argument(
                option, dest=name, nargs='?', const=True, type=as_bool, metavar='1|0'
            )
        elif list in kinds:
            parser.add_argument(option, dest=name, nargs='+', type=as_item)
        else:
            parser.add_argument(option, dest=name, type=kinds[0])

    # words like name=value stand apart, so that --layers and --vis do not take them for theirs
    words = sys.argv[1:] if argv is None else argv
    pairs = [word for word in words if WORD_OF_SETTING.match(word)]
    given = vars(parser.parse_args([word for word in words if word not in pairs]))

    # only what was given on the command line wins over the file
    config = given.pop('config')
    for name in ('input_size', 'layers'):
        if len(given.get(name, ())) == 1:
            given[name] = given[name][0]
    return config, given | settings_of_words(pairs)


def as_bool(text: str) -> bool:
    values = {'1': True, 'true': True, 'yes': True, '0': False, 'false': False, 'no': False}
    if text.lower() not in values:
        raise argparse.ArgumentTypeError(f'expected 1 or 0, got {text!r}')
    return values[text.lower()]


def as_item(text: str) -> int | str:
    return int(text) if text.lstrip('-').isdigit() else text


if __name__ == '__main__':
    run_tool(parse_args)  # help and wrong arguments are answered before anything heavy is imported

from tqdm import tqdm

from oneformer3d.extraction.run import extract_features
from oneformer3d.files.left_out import LossRules


def main(argv: list[str] | None = None) -> None:
    config, given = parse_args(argv)
    settings = make_settings(read_yaml(config), given, source=str(config))
    rank, world_size = int(os.environ.get('RANK', 0)), int(os.environ.get('WORLD_SIZE', 1))
    with tqdm(unit='image', desc='CLIP features', delay=1, disable=rank != 0) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        report = extract_features(settings, rank=rank, world_size=world_size, progress=progress)
    path = Path(settings.output_dir) / f'extraction.r{rank:04d}.json'
    report.write(path)
    if rank == 0:
        print(report.table())
        if world_size > 1:
            print(f'rank 0 of {world_size}; the others: {path.parent}/extraction.r*.json')
        print(f'store: {settings.store_path}')
    if world_size == 1:  # a rank that ends so would have torchrun end the others in their work
        report.check_lost(settings.store_path, LossRules(settings.strict, settings.max_lost))


if __name__ == '__main__':
    # on SIGTERM the last batch is committed on the way out
    run_tool(main, errors=(*USER_ERRORS, RuntimeError))
