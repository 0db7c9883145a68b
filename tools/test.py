"""Evaluate a checkpoint and, if asked, write what it predicts as pictures and clouds.

python tools/test.py CONFIG CHECKPOINT
python tools/test.py CONFIG CHECKPOINT --show-dir pictures/
python tools/test.py CONFIG CHECKPOINT --tta
"""

import argparse
import json
from typing import TYPE_CHECKING

from oneformer3d.engine.cli import ToolParser, add_common_arguments, run_tool

if TYPE_CHECKING:
    from mmengine.config import Config

TASKS = ('lidar_seg',)


def parse_args() -> argparse.Namespace:
    parser = ToolParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='weights to evaluate')
    parser.add_argument('--show-dir', help='write a PNG and a PLY per scene there (no display)')
    parser.add_argument('--score-thr', type=float, default=0.3, help='instances that are drawn')
    parser.add_argument('--task', choices=TASKS, default='lidar_seg', help='what is drawn')
    parser.add_argument(
        '--tta',
        action='store_true',
        help="average over the views of the config's tta_pipeline: mirrored and turned scenes",
    )
    parser.add_argument('--out', help='write the metrics there as JSON')
    add_common_arguments(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()

    from mmengine.dist import is_main_process
    from mmengine.fileio import get_file_backend

    from oneformer3d.engine.configs import prepare
    from oneformer3d.engine.launch import leave_group
    from oneformer3d.engine.tta import with_tta

    cfg = prepare(args)
    if args.tta:
        cfg = with_tta(cfg, args.cfg_options)
    if args.show_dir is not None:
        hooks = [*cfg.get('custom_hooks', [])]
        hooks.append(
            dict(type='SegVisualizationHook', out_dir=args.show_dir, score_thr=args.score_thr)
        )
        cfg.custom_hooks = hooks
    metrics = evaluate(cfg, args.checkpoint)
    if args.out is not None and is_main_process():
        text = json.dumps({name: float(value) for name, value in metrics.items()}, indent=2)
        get_file_backend(backend_args={'backend': 'atomic'}).put_text(text + '\n', args.out)
    leave_group()


def evaluate(cfg: 'Config', checkpoint: str) -> dict[str, float]:
    """Metrics of a checkpoint; the runner is let go on return."""
    from oneformer3d.engine.data_workers import tended_workers
    from oneformer3d.engine.launch import build_runner
    from oneformer3d.engine.tta import inner_model
    from oneformer3d.segmentor.weights import load_checkpoint

    runner = build_runner(cfg)
    load_checkpoint(inner_model(runner.model), checkpoint)
    with tended_workers(runner):
        return runner.test()


if __name__ == '__main__':
    run_tool(main)
