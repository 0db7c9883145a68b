"""Train a segmentor.

python tools/train.py configs/oneformer3d_synthetic.py
python tools/train.py CONFIG --work-dir DIR --amp --resume
bash tools/dist_train.sh CONFIG GPUS
"""

import argparse
from typing import TYPE_CHECKING

from oneformer3d.engine.cli import ToolParser, add_common_arguments, run_tool, tell

if TYPE_CHECKING:
    from mmengine.config import Config


def parse_args() -> argparse.Namespace:
    parser = ToolParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('--amp', action='store_true', help='mixed precision (CPU: bfloat16)')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate by the batch size over auto_scale_lr.base_batch_size',
    )
    parser.add_argument(
        '--sync-bn',
        choices=('torch', 'none'),
        help='take the statistics of batch norms over all processes; GPUs only (default: as the '
        "config's sync_bn says)",
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='go on from a checkpoint; without a name, from the latest in the work dir',
    )
    add_common_arguments(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from oneformer3d.engine.configs import prepare
    from oneformer3d.engine.launch import leave_group, work_dir_of_one

    cfg = prepare(args)
    if args.sync_bn is not None:
        cfg.sync_bn = None if args.sync_bn == 'none' else args.sync_bn
    with work_dir_of_one(cfg):
        train(cfg, args)
    leave_group()


def train(cfg: 'Config', args: argparse.Namespace) -> None:
    """Train as the arguments say; the runner is let go on return."""
    from oneformer3d.engine.amp import enable_amp
    from oneformer3d.engine.data_workers import tended_workers
    from oneformer3d.engine.launch import build_runner
    from oneformer3d.files.checkpoints import check_whole, find_whole_checkpoint

    if args.amp:
        cfg.optim_wrapper = enable_amp(cfg.optim_wrapper)
    if args.auto_scale_lr:
        if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
            raise ValueError(f'{args.config}: --auto-scale-lr needs auto_scale_lr.base_batch_size')
        cfg.auto_scale_lr.enable = True
    if args.resume == 'auto':
        # Nothing to go on from yet: a run that should start from other weights does so.
        latest, passed_over = find_whole_checkpoint(cfg.work_dir)
        tell(passed_over, 'show')
        if latest is not None:
            cfg.resume, cfg.load_from = True, str(latest)
    elif args.resume is not None:
        cfg.resume, cfg.load_from = True, args.resume
    if cfg.get('load_from') and '://' not in cfg.load_from:
        check_whole(cfg.load_from)
    runner = build_runner(cfg)
    with tended_workers(runner):
        runner.train()


if __name__ == '__main__':
    run_tool(main)
