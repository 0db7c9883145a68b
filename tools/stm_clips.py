"""Train and measure a detector of persons and their actions on clips: frame-mAP at IoU 0.5.

    python tools/stm_clips.py FRAMES --train train.csv --val val.csv --out work_dirs/clips
    python tools/stm_clips.py FRAMES --val val.csv --out work_dirs/clips     # measure alone
    python tools/stm_clips.py FRAMES --train train.csv --out OUT \
        --set detector.backbone=resnet18 training.steps=500 clips.num_actions=24

FRAMES holds a folder of frames for each video, in the order of their names, or a video file.
``tools/create_data.py moving_shapes`` makes some. Annotations are rows
"video, second, left, top, right, bottom, action, person" as AVA writes them, boxes in shares of the
image, actions from 1. OUT/stm_clips.pth is the detector; interrupted, the same command goes on.
OUT/report.json holds the frame-mAP and OUT/detections.csv what was found, in the same columns with
the score at the end.
"""

import argparse
import json
from pathlib import Path

from oneformer3d.engine.cli import ToolParser, run_tool

CONFIG = Path(__file__).resolve().parents[1] / 'configs' / 'stm_clips.yaml'


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = ToolParser(description=__doc__)
    parser.add_argument('frames', type=Path, help='folder of folders of frames, or of video files')
    parser.add_argument('--train', type=Path, help='CSV to learn from; none measures alone')
    parser.add_argument('--val', type=Path, help='CSV to measure on')
    parser.add_argument('--out', type=Path, required=True, help='folder of the detector')
    parser.add_argument('--config', type=Path, default=CONFIG, help='YAML (%(default)s)')
    parser.add_argument(
        '--set', nargs='+', default=[], metavar='GROUP.NAME=VALUE', help='e.g. training.steps=500'
    )
    parser.add_argument('--weights', type=Path, help='state dict of the backbone')
    parser.add_argument('--device', default='auto', help='auto | cpu | cuda')
    parser.add_argument('--fresh', action='store_true', help='begin again in any case')
    return parser.parse_args(argv)


if __name__ == '__main__':
    run_tool(parse_args)  # help and wrong arguments are answered before anything heavy is imported

import torch
import yaml
from tqdm import tqdm

from oneformer3d.files.atomic import atomic_write_bytes
from oneformer3d.files.devices import pick_device
from oneformer3d.files.yaml import read_yaml
from oneformer3d.metrics.frame_map import FrameBoxes, frame_map
from oneformer3d.stm.clip_detector import ClipDetector
from oneformer3d.stm.clip_training import (
    CHECKPOINT_NAME,
    ClipTraining,
    detect_clips,
    read_detector,
    train_clip_detector,
)
from oneformer3d.stm.clips import ClipFolder, ClipSettings

GROUPS = ('clips', 'detector', 'training')


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    if args.train is None and args.val is None:
        raise ValueError('nothing to do: give --train, --val or both')
    groups = read_groups(args.config, args.set)
    try:
        settings, training = ClipSettings(**groups['clips']), ClipTraining(**groups['training'])
        torch.manual_seed(training.seed)
        detector = ClipDetector(
            **groups['detector'],
            weights=args.weights,
            num_frames=settings.num_frames,
            num_actions=settings.num_actions,
        )
    except TypeError as error:
        raise ValueError(f'{args.config}: {error}') from error
    detector.to(pick_device(args.device))

    if args.train is not None:
        train(detector, ClipFolder(args.frames, args.train, settings), training, args)
    else:
        read_detector(args.out / CHECKPOINT_NAME, detector)
    if args.val is not None:
        measure(detector, ClipFolder(args.frames, args.val, settings), training, args.out)


def read_groups(path: Path, words: list[str]) -> dict[str, dict]:
    """Settings by group, of a file and of words ``group.name=value`` that win over it."""
    groups = read_yaml(path)
    if set(groups) - set(GROUPS):
        raise ValueError(f'{path}: expected the groups {GROUPS}, got {sorted(groups)}')
    groups = {name: dict(groups.get(name) or {}) for name in GROUPS}
    for word in words:
        name, equals, text = word.partition('=')
        group, dot, key = name.partition('.')
        if not equals or not dot or group not in groups:
            raise ValueError(f'--set: expected GROUP.NAME=VALUE of {GROUPS}, got {word!r}')
        groups[group][key] = yaml_value(text, word)

    if 'image_size' in groups['clips']:
        groups['clips']['image_size'] = tuple(groups['clips']['image_size'])
    return groups


def yaml_value(text: str, word: str) -> object:
    """A plain value of its text."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f'--set: {word!r} is not readable as YAML') from error


def train(
    detector: ClipDetector, clips: ClipFolder, training: ClipTraining, args: argparse.Namespace
) -> None:
    """Train with a progress bar."""
    with tqdm(total=training.steps, desc='clips', unit='step') as bar:

        def progress(step: int, loss: float) -> None:
            bar.update(step - bar.n)
            bar.set_postfix(loss=f'{loss:.2f}', refresh=False)

        train_clip_detector(
            detector, clips, training, args.out, resume=not args.fresh, on_step=progress
        )
    print(f'detector: {args.out / CHECKPOINT_NAME}')


def measure(detector: ClipDetector, clips: ClipFolder, training: ClipTraining, out: Path) -> None:
    """Detect in every key frame, write what was found, and score it."""
    found = [FrameBoxes(*pair) for pair in detect_clips(detector, clips, training.batch_size)]
    true = [FrameBoxes(key.boxes, key.actions) for key in clips.key_frames]
    scores = frame_map(found, true)

    ap = {str(a + 1): float(value) for a, value in enumerate(scores.ap) if value == value}
    report = {'frame_map': scores.mean, 'key_frames': len(true), 'ap': ap}
    atomic_write_bytes(out / 'report.json', json.dumps(report, indent=2).encode() + b'\n')
    rows = detection_rows(clips, found)
    atomic_write_bytes(out / 'detections.csv', ('\n'.join(rows) + '\n').encode())
    print(f'frame-mAP at 0.5: {scores.mean:.3f} of {len(ap)} actions in {len(true)} key frames')


def detection_rows(clips: ClipFolder, found: list[FrameBoxes], least: float = 0.01) -> list[str]:
    """Lines ``video,second,left,top,right,bottom,action,score`` of scores above ``least``."""
    rows = []
    for key, frame in zip(clips.key_frames, found, strict=True):
        for box, scores in zip(frame.boxes, frame.actions, strict=True):
            place = ','.join(f'{value:.4f}' for value in box)
            rows += [
                f'{key.video},{key.second:g},{place},{action + 1},{score:.4f}'
                for action, score in enumerate(scores)
                if score > least
            ]
    return rows


if __name__ == '__main__':
    run_tool(main)
