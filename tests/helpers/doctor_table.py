"""The table of docs/data.md: what the doctor says to a sound sequence that was broken on purpose.

    python -m tests.helpers.doctor_table FOLDER --out DIR

Enters: a sound folder, and the faults of ``kitchen_faults``. Leaves: ``DIR/results.json``, to which
each fault is added when it is done, so that a run goes on where it was ended, and the table as
Markdown. What is fixed is written to a copy, which is read again to measure how frames agree then.
"""

import argparse
import json
import shutil
import sys
import time
from pathlib import Path

from tqdm import tqdm

from oneformer3d.data.doctor.diagnose import FIXABLE, Diagnosis, diagnose_recording
from oneformer3d.data.doctor.fit import assess
from oneformer3d.data.doctor.fix import write_fixed
from oneformer3d.data.doctor.frames import list_frames, load_recording, recording_of
from oneformer3d.files.atomic import atomic_write_bytes
from tests.helpers.break_frames import Fault, Frames
from tests.helpers.kitchen_faults import kitchen_faults

Row = dict[str, str | float | None]
_MAX_WORDS = 3  # outliers and fixes that are told


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('folder', help='a sound sequence')
    parser.add_argument('--out', type=Path, required=True, help='for results and broken images')
    parser.add_argument('--only', nargs='+', help='faults, by name')
    args = parser.parse_args(argv)

    args.out.mkdir(parents=True, exist_ok=True)
    results = args.out / 'results.json'
    rows = json.loads(results.read_text(encoding='utf-8')) if results.is_file() else {}
    frames, faults = list_frames(args.folder), kitchen_faults(args.out / 'images')
    for name in tqdm(args.only or faults, unit='fault'):
        if name not in rows or args.only:
            rows[name] = measure(frames, faults[name], args.out / 'fixed')
            atomic_write_bytes(results, json.dumps(rows, indent=1).encode())
    sys.stdout.write(as_markdown({name: rows[name] for name in faults if name in rows}))


def measure(frames: Frames, fault: Fault, scratch: Path) -> Row:
    """Break, diagnose, fix and look again."""
    broken = fault(frames)
    started = time.process_time()
    try:
        diagnosis = diagnose_recording(recording_of(broken, 'the frames'))
    except ValueError as error:
        return {'verdict': 'refused', 'words': str(error), 'before': None, 'after': None, 's': None}
    seconds = time.process_time() - started
    return {
        'verdict': diagnosis.verdict,
        'words': _words(diagnosis),
        'before': diagnosis.before.agreement,
        'after': _agreement_of_copy(broken, diagnosis, scratch),
        's': seconds,
    }


def _agreement_of_copy(broken: Frames, diagnosis: Diagnosis, scratch: Path) -> float | None:
    if diagnosis.verdict != FIXABLE:
        return None
    shutil.rmtree(scratch, ignore_errors=True)
    write_fixed(broken, diagnosis, scratch)
    agreement = assess(load_recording(scratch)).agreement
    shutil.rmtree(scratch)
    return agreement


def _words(diagnosis: Diagnosis) -> str:
    said = [fix for fix in diagnosis.fixes if not fix.startswith('leave out')]
    if diagnosis.outliers and diagnosis.fixes:
        names = ', '.join(diagnosis.outliers[:_MAX_WORDS])
        more = ', …' if len(diagnosis.outliers) > _MAX_WORDS else ''
        said.append(f'leave out {len(diagnosis.outliers)} frames ({names}{more})')
    return '; '.join(said[:_MAX_WORDS] or diagnosis.reasons[:1])


def as_markdown(rows: dict[str, Row]) -> str:
    """The rows as a table."""
    sound = rows.get('none', {}).get('before')
    lines = ['| fault | sound | broken | verdict | said | after the fix | s |', '|---|' * 7]
    lines[1] = '|' + '---|' * 7
    for name, row in rows.items():
        numbers = [_percent(value) for value in (sound, row['before'], row['after'])]
        seconds = '–' if row['s'] is None else f'{row["s"]:.0f}'
        words = str(row['words']).replace('|', '/')
        lines.append(
            f'| {name} | {numbers[0]} | {numbers[1]} | {row["verdict"]} | {words} | {numbers[2]} '
            f'| {seconds} |'
        )
    return '\n'.join(lines) + '\n'


def _percent(value: str | float | None) -> str:
    return '–' if value is None else f'{100 * float(value):.1f} %'


if __name__ == '__main__':
    main()
