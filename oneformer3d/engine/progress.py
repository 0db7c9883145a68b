"""Progress of a tool on a terminal: a bar per step.

Enters: the name of a step, how much of it is done, and of how much. Leaves: lines on stderr.
"""

import sys

_WIDTH = 20


def show_progress(step: str, done: int, total: int) -> None:
    """One line per step on stderr, rewritten while it runs on a terminal."""
    if sys.stderr.isatty():
        bar = '#' * round(_WIDTH * done / total)
        end = '\n' if done == total else ''
        sys.stderr.write(f'\r{step:12s} [{bar:{_WIDTH}s}] {done}/{total}{end}')
    elif done < total:
        sys.stderr.write(f'{step} {done + 1}/{total}\n')
    sys.stderr.flush()
