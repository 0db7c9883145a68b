"""Is this posed RGB-D folder what it says, and if not, what is to fix?

    python tools/doctor.py FOLDER
    python tools/doctor.py FOLDER --fix OUT

Takes pixels of one frame into others by their depth and looks for changes of poses, time, depth and
intrinsics that make frames agree clearly better. Exit status: 0 sound, 1 there is something to fix
(with --fix: nothing would put it right) or the frames do not fit well, 2 the folder cannot be read.
"""

import argparse
import json
import sys

from oneformer3d.engine.cli import (
    ToolParser,
    add_recording_arguments,
    loss_rules,
    recording_options,
    run_tool,
    tell,
)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = ToolParser(description=__doc__)
    parser.add_argument('folder', help='frames with poses, depth and intrinsics')
    parser.add_argument('--fix', metavar='OUT', help='write a fixed copy to this new folder')
    parser.add_argument('--max-frames', type=int, default=24, help='to compare (%(default)s)')
    parser.add_argument('--num-pixels', type=int, default=300, help='of each frame (%(default)s)')
    add_recording_arguments(parser, max_lost=1.0)
    parser.add_argument('--json', action='store_true', help='print JSON instead of text')
    return parser.parse_args(argv)


if __name__ == '__main__':
    run_tool(parse_args)  # help and wrong arguments are answered before anything heavy is imported


from oneformer3d.data.doctor.diagnose import (
    FIXABLE,
    SOUND,
    Diagnosis,
    describe,
    diagnose_recording,
)
from oneformer3d.data.doctor.fix import write_fixed
from oneformer3d.data.doctor.frames import read_as_written, recording_of, source_frames
from oneformer3d.files.left_out import LeftOut


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    found = read_as_written(args.folder, **recording_options(args))
    tell(found.warnings, args.warnings)
    frames = source_frames(found)
    lost = LeftOut(args.folder, loss_rules(args))
    recording = recording_of(frames, args.folder, args.max_frames, args.num_pixels, lost)
    lost.check(len(recording.chosen) + len(lost))
    tell([lost.describe()] if len(lost) else [], args.warnings)
    diagnosis = diagnose_recording(recording)
    print(json.dumps(as_json(diagnosis), indent=1) if args.json else describe(diagnosis))
    if args.fix is not None and diagnosis.verdict == FIXABLE:
        num_written, num_left = write_fixed(frames, diagnosis, args.fix)
        print(f'{args.fix}: {num_written} frames written, {num_left} left out', file=sys.stderr)
        return
    if diagnosis.verdict != SOUND:
        sys.exit(1)


def as_json(diagnosis: Diagnosis) -> dict[str, object]:
    """The diagnosis in plain values."""
    return {
        'verdict': diagnosis.verdict,
        'fixes': list(diagnosis.fixes),
        'reasons': list(diagnosis.reasons),
        'outliers': list(diagnosis.outliers),
        'agreement': diagnosis.before.agreement,
        'agreement_aligned': diagnosis.before.reachable,
        'agreement_after': diagnosis.after.agreement,
        'num_frames': diagnosis.num_frames,
        'num_lost_poses': diagnosis.num_lost,
        'num_not_rigid': diagnosis.num_not_rigid,
        'num_unreadable': diagnosis.num_unreadable,
    }


if __name__ == '__main__':
    run_tool(main)
