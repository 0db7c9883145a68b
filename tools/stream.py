"""Segment a recording frame by frame, as it would be while scanning; no ground truth is needed.

python tools/stream.py kinect_sequence/ --out DIR
python tools/stream.py kinect_sequence/ --follow ...        while another program writes frames
python tools/stream.py kinect_sequence/ --realtime 30 ...   frames do not wait; the newest wins

SOURCE is a folder of posed RGB-D frames in any layout. DIR receives tracks.ply, tracks.json,
tracks.png and stream.json, and of the whole map the files of tools/infer.py. A run that was stopped
goes on where its last snapshot was taken; see docs/streaming.md.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from oneformer3d.engine.cli import (
    ToolParser,
    add_folder_arguments,
    add_model_arguments,
    add_recording_arguments,
    folder_options,
    loss_rules,
    model_files,
    recording_options,
    run_tool,
)

if TYPE_CHECKING:
    from oneformer3d.data.layouts import PosedFrame
    from oneformer3d.files.left_out import LeftOut
    from oneformer3d.streaming.segmentor import FrameResult, StreamingSegmentor

SNAPSHOT, LEDGER = 'state.npz', 'votes.ledger'


def parse_args() -> argparse.Namespace:
    parser = ToolParser(description=__doc__)
    parser.add_argument('source', help='folder of posed RGB-D frames')
    add_model_arguments(parser)
    parser.add_argument('--out', required=True, help='folder for the results')
    add_folder_arguments(parser)
    parser.add_argument('--device', help='cpu, cuda, ... (default: a GPU where there is one)')
    parser.add_argument(
        '--score-thr', type=float, default=0.3, help='least instance score (default: %(default)s)'
    )
    parser.add_argument('--frame-step', type=int, default=1, help='take every so many-th frame')
    parser.add_argument(
        '--up',
        choices=('x', 'y', 'z', '-x', '-y', '-z'),
        help='axis of the world that points up (default: as the cameras and surfaces of the '
        'frames that are there tell)',
    )
    parser.add_argument('--follow', action='store_true', help='wait for frames that are to come')
    parser.add_argument(
        '--idle', type=float, default=10.0, help='with --follow: end after so many seconds'
    )
    parser.add_argument(
        '--realtime', type=float, metavar='FPS', help='frames come at this rate; late ones are lost'
    )
    parser.add_argument(
        '--snapshot-every', type=int, default=20, help='frames between snapshots (%(default)s)'
    )
    parser.add_argument('--fresh', action='store_true', help='do not go on from a snapshot')
    add_recording_arguments(parser)
    args = parser.parse_args()
    args.config, args.checkpoint = model_files(args)
    return args


def main() -> None:
    args = parse_args()
    check(args)

    from oneformer3d.data.posed_rgbd import load_posed_rgbd
    from oneformer3d.files.left_out import LeftOut
    from oneformer3d.streaming.files import write_stream

    folder = load_posed_rgbd(args.source, args.frame_step, **recording_options(args))
    if not folder.has_depth:
        raise ValueError(f'{args.source}: its frames have no depth')
    segmentor = build(args, folder.frames)
    resume(args, segmentor)

    results, lost = [], LeftOut(args.source, loss_rules(args))
    for number, result in enumerate(stream(args, segmentor, folder.frames, lost), start=1):
        results.append(result)
        tell_frame(number, result, segmentor)
        if number % args.snapshot_every == 0:
            segmentor.snapshot().save(Path(args.out) / SNAPSHOT)
    segmentor.snapshot().save(Path(args.out) / SNAPSHOT)

    # the snapshot vouches for everything above; the summary of infer.py's files comes last
    write_stream(segmentor, results, args.out)
    segmentation = segmentor.finalize()
    segmentation.save(args.out)
    report(args, segmentor, len(segmentation.instances))
    lost.check(len(results) + len(lost))


def check(args: argparse.Namespace) -> None:
    """Find what can be wrong before anything slow is loaded."""
    if not 0 <= args.score_thr <= 1:
        raise ValueError(f'--score-thr: expected a number within 0 to 1, got {args.score_thr}')
    if args.frame_step < 1 or args.snapshot_every < 1:
        raise ValueError('--frame-step and --snapshot-every must be at least 1')
    if args.realtime is not None and not args.realtime > 0:
        raise ValueError(f'--realtime: expected a positive rate, got {args.realtime}')
    if args.follow and args.realtime is not None:
        raise ValueError('--follow and --realtime exclude each other')
    if not Path(args.source).is_dir():
        raise FileNotFoundError(f'{args.source}: no such folder')
    if Path(args.out).exists() and not Path(args.out).is_dir():
        raise NotADirectoryError(f'{args.out}: is not a folder')


def build(args: argparse.Namespace, frames: 'tuple[PosedFrame, ...]') -> 'StreamingSegmentor':
    """The segmentor, its ledger in the folder of the results."""
    from oneformer3d.data.upright import up_from_axis
    from oneformer3d.engine.configs import load_config
    from oneformer3d.streaming.segmentor import StreamingSegmentor
    from oneformer3d.streaming.sources import up_of_recording

    ledger = Path(args.out) / LEDGER
    if args.fresh:
        for path in (ledger, Path(args.out) / SNAPSHOT):
            path.unlink(missing_ok=True)
    return StreamingSegmentor(
        load_config(args.config, folder_options(args)),
        args.checkpoint,
        up=up_from_axis(args.up) if args.up else up_of_recording(frames),
        score_thr=args.score_thr,
        ledger=ledger,
        device=args.device,
    )


def resume(args: argparse.Namespace, segmentor: 'StreamingSegmentor') -> None:
    """Go on from the snapshot in the folder of the results, if there is one."""
    from oneformer3d.streaming.state import MergeState

    path = Path(args.out) / SNAPSHOT
    if path.is_file():
        segmentor.restore(MergeState.load(path))
        print(f'goes on after {segmentor.merge.num_frames} frames: {path}', file=sys.stderr)


def stream(
    args: argparse.Namespace,
    segmentor: 'StreamingSegmentor',
    frames: 'tuple[PosedFrame, ...]',
    lost: 'LeftOut',
) -> 'Iterator[FrameResult]':
    """Results of the frames that were not taken before; those that cannot be read are ``lost``."""
    from oneformer3d.streaming.sources import follow, newest_first, number_of_name, read_frame

    listed: Iterator[PosedFrame] = iter(frames)
    if args.follow:
        options = {**recording_options(args), 'frame_step': args.frame_step}
        listed = follow(args.source, idle=args.idle, **options)
    elif args.realtime is not None:
        listed = count_lost(segmentor, newest_first(frames, args.realtime))

    for frame in listed:
        if not segmentor.has_taken(number_of_name(frame.name)):
            pixels = read_frame(frame)
            if pixels is None:
                lost.add(frame.name, 'unreadable')
                segmentor.leave_out('unreadable')
            else:
                yield segmentor.step(pixels)


def count_lost(
    segmentor: 'StreamingSegmentor', items: 'Iterator[tuple[PosedFrame, int]]'
) -> 'Iterator[PosedFrame]':
    """The frames, while those that came too fast are counted."""
    for frame, lost in items:
        segmentor.leave_out('came too fast', lost)
        yield frame


def tell_frame(number: int, result: 'FrameResult', segmentor: 'StreamingSegmentor') -> None:
    """One line on stderr."""
    what = result.left_out or f'{len(result.ids)} objects'
    seconds = sum(result.seconds.values())
    line = f'{number} {result.name}: {what}, {seconds:.2f} s, {len(segmentor.surface)} voxels'
    print(line, file=sys.stderr, flush=True)


def report(args: argparse.Namespace, segmentor: 'StreamingSegmentor', num_instances: int) -> None:
    """The main numbers on stdout."""
    tracks = segmentor.merge.tracks()
    confirmed = sum(track.state != 'tentative' for track in tracks)
    print(f'{segmentor.merge.num_frames} frames, {len(segmentor.surface)} voxels')
    for warning in segmentor.warnings:
        print(warning)
    print(f'{confirmed} tracks met more than once, {len(tracks) - confirmed} once')
    print(f'{num_instances} instances of the whole map in one go')
    print(f'results: {args.out}')


if __name__ == '__main__':
    run_tool(main)
