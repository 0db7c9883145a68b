"""The main job on the embedded default: rooms, points, CLIP, fusion, test, predict, report.

    python tools/demo.py                 (or: bash tools/demo.sh, which also sets up)
    python tools/demo.py --fresh         start again instead of going on

Each step is one of the project's own tools, run as a user would run it; what is
finished already is not done twice.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

from oneformer3d.engine.cli import run_tool

REPOSITORY = Path(__file__).resolve().parent.parent
POINTS, FUSED = 'configs/oneformer3d_synthetic.py', 'configs/bifusion_synthetic.py'
POINTS_EPOCHS, FUSED_EPOCHS = 20, 14
HEADLINES = {
    'semantic mIoU': 'semantic/mIoU',
    'instance AP': 'instance/AP',
    'instance AP50': 'instance/AP50',
    'instance AP25': 'instance/AP25',
    'panoptic PQ': 'panoptic/PQ',
}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--out', default='work_dirs/demo', help='results (default: %(default)s)')
    parser.add_argument('--data', default='data/synthetic', help='rooms (default: %(default)s)')
    parser.add_argument('--num-train', type=int, default=24, help='training rooms')
    parser.add_argument('--num-val', type=int, default=8, help='validation rooms')
    parser.add_argument('--epochs', type=int, help='of each training')
    parser.add_argument('--fresh', action='store_true', help='delete earlier results first')
    return parser.parse_args()


def data_command(args: argparse.Namespace) -> list[str]:
    counts = ['--num-train', str(args.num_train), '--num-val', str(args.num_val)]
    return ['tools/create_data.py', 'synthetic', '--out', args.data, *counts, '--seed', '0']


def points_command(args: argparse.Namespace) -> list[str]:
    """Train on points alone."""
    command = ['tools/train.py', POINTS, '--work-dir', f'{args.out}/points', '--resume']
    return [*command, '--cfg-options', *epoch_options(args, POINTS_EPOCHS), *data_options(args)]


def clip_command(args: argparse.Namespace) -> list[str]:
    """Train a small CLIP on crops and captions of the training rooms."""
    return ['tools/train_tiny_clip.py', '--data', args.data, '--out', f'{args.out}/clip']


def features_command(args: argparse.Namespace) -> list[str]:
    """Its dense features of all images, into a store."""
    command = ['tools/extract_clip_feat.py', '--data_root', args.data, '--resume']
    command += ['--weights', f'{args.out}/clip/tiny_clip.pth']
    return [*command, '--output_dir', f'{args.out}/clip_feat']


def fused_command(args: argparse.Namespace) -> list[str]:
    """Go on from the weights of the points with image features fused in."""
    command = ['tools/train.py', FUSED, '--work-dir', f'{args.out}/fused', '--resume']
    options = [*epoch_options(args, FUSED_EPOCHS), f'load_from={checkpoint(args, "points")}']
    return [*command, '--cfg-options', *options, *data_options(args), *store_options(args)]


def test_points_command(args: argparse.Namespace) -> list[str]:
    command = ['tools/test.py', POINTS, checkpoint(args, 'points')]
    command += ['--work-dir', f'{args.out}/test', '--out', f'{args.out}/metrics_points.json']
    return [*command, '--cfg-options', *data_options(args)]


def test_fused_command(args: argparse.Namespace) -> list[str]:
    command = ['tools/test.py', FUSED, checkpoint(args, 'fused'), '--work-dir', f'{args.out}/test']
    command += ['--show-dir', f'{args.out}/pictures', '--out', f'{args.out}/metrics_fused.json']
    return [*command, '--cfg-options', *data_options(args), *store_options(args)]


def predict_command(args: argparse.Namespace) -> list[str]:
    """Predict a validation room from its posed RGB-D images alone."""
    split = Path(args.data, 'meta_data', 'synthetic_val.txt')
    scene = split.read_text(encoding='utf-8').split()[0]
    command = ['tools/infer.py', f'{args.data}/posed_images/{scene}', '--config', FUSED]
    command += ['--checkpoint', checkpoint(args, 'fused'), '--out', f'{args.out}/predict']
    return [*command, '--clip-weights', f'{args.out}/clip/tiny_clip.pth']


def epoch_options(args: argparse.Namespace, usual: int) -> list[str]:
    epochs = usual if args.epochs is None else args.epochs
    # tested once, by the steps after training
    options = [f'train_cfg.max_epochs={epochs}', f'param_scheduler.end={epochs}']
    return [*options, f'train_cfg.val_begin={epochs + 1}']


def data_options(args: argparse.Namespace) -> list[str]:
    loaders = ('train_dataloader', 'val_dataloader', 'test_dataloader')
    return [f'{loader}.dataset.data_root={args.data}' for loader in loaders]


def store_options(args: argparse.Namespace) -> list[str]:
    store = f'{args.out}/clip_feat'
    loaders = ('train_dataloader', 'val_dataloader', 'test_dataloader')
    options = [f'{loader}.dataset.pipeline.2.clip_store={store}' for loader in loaders]
    return [f'model.encoder.clip_store={store}', *options]


def checkpoint(args: argparse.Namespace, step: str) -> str:
    """The last checkpoint of a training step, which mmengine names in a text file."""
    return Path(args.out, step, 'last_checkpoint').read_text(encoding='utf-8').strip()


STEPS = {
    'data': data_command,
    'points': points_command,
    'clip': clip_command,
    'features': features_command,
    'fused': fused_command,
    'test points': test_points_command,
    'test fused': test_fused_command,
    'predict': predict_command,
}


def run_step(name: str, command: list[str], number: int) -> float:
    """Run one tool with its output on this terminal; return its seconds."""
    print(f'\n=== {number}/{len(STEPS)} {name}: python {" ".join(command)}', flush=True)
    start = time.perf_counter()
    status = subprocess.run([sys.executable, *command], cwd=REPOSITORY, check=False).returncode
    if status != 0:
        raise RuntimeError(f'step {name!r} ended with status {status}; its message is above')
    return time.perf_counter() - start


def write_report(out: Path, seconds: dict[str, float]) -> str:
    """Write ``report.md``: metrics, times, where the files are; return its text."""
    points, fused = (
        json.loads((out / f'metrics_{name}.json').read_text(encoding='utf-8'))
        for name in ('points', 'fused')
    )
    rows = [
        f'| {label} | {100 * points[key]:.1f} | {100 * fused[key]:.1f} |'
        for label, key in HEADLINES.items()
    ]
    times = [f'| {name} | {value:.0f} |' for name, value in seconds.items()]
    pictures = sorted(path.relative_to(out) for path in out.glob('pictures/*.png'))
    predictions = sorted(path.relative_to(out) for path in out.glob('predict/*'))
    lines = [
        '# Demo: OneFormer3D on synthetic rooms',
        '',
        '| validation rooms, % | points | points and images |',
        '|---|---|---|',
        *rows,
        '',
        f'| step | seconds (total {sum(seconds.values()):.0f}) |',
        '|---|---|',
        *times,
        '',
        'Weights and logs: `points/`, `clip/` and `fused/`. All metrics: `metrics_*.json`.'
        f' Pictures: {len(pictures)} in `pictures/`, for example',
        '',
        *[f'![{path.stem}]({path})' for path in pictures[:2]],
        '',
        'A room predicted from its images and depth alone, without labels:',
        *[f'- `{path}`' for path in predictions],
        '',
    ]
    text = '\n'.join(lines)
    (out / 'report.md').write_text(text, encoding='utf-8')
    return text


def main() -> None:
    args = parse_args()
    out = Path(args.out)
    if args.fresh and out.exists():
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    log = out / 'seconds.json'
    seconds = json.loads(log.read_text(encoding='utf-8')) if log.is_file() else {}
    for number, (name, make_command) in enumerate(STEPS.items(), start=1):
        elapsed = run_step(name, make_command(args), number)
        # a step that was finished before returns at once: keep the time it took then
        seconds[name] = max(elapsed, seconds.get(name, 0.0))
        log.write_text(json.dumps(seconds, indent=2), encoding='utf-8')
    print('\n' + write_report(out, seconds))
    print(f'report: {out / "report.md"}')


if __name__ == '__main__':
    run_tool(main, errors=(RuntimeError, ValueError, OSError))
