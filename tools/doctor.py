"""Which convention is this posed RGB-D folder in, and what is there to fix?

    python tools/doctor.py FOLDER

Tries {camera→world, world→camera} × {OpenCV, OpenGL} × intrinsics × depth units, takes pixels of
one frame into others by their depth, and sees where depth and colour agree. Exit status: 0 nothing
to fix, 1 there is something to fix (or nothing fits), 2 the folder cannot be read.
"""

import argparse
import json
import sys
from dataclasses import asdict

from oneformer3d.data.doctor.diagnose import describe, diagnose
from oneformer3d.engine.cli import run_tool


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('folder', help='frames with poses, depth and intrinsics')
    parser.add_argument('--max-frames', type=int, default=24, help='to compare (%(default)s)')
    parser.add_argument('--num-pixels', type=int, default=600, help='of each frame (%(default)s)')
    parser.add_argument('--num-readings', type=int, default=6, help='to show (%(default)s)')
    parser.add_argument('--json', action='store_true', help='print JSON instead of a table')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    diagnosis = diagnose(args.folder, args.max_frames, args.num_pixels)
    if args.json:
        content = asdict(diagnosis)
        content['mends'] = content.pop('fixes')  # the report's own name for them
        print(json.dumps(content, indent=1))
    else:
        print(describe(diagnosis, args.num_readings))
    if diagnosis.fixes or not diagnosis.fits:
        sys.exit(1)


if __name__ == '__main__':
    run_tool(main)
