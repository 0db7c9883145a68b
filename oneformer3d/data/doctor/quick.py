"""A first look at posed frames, in about a second, for whoever is about to use them.

Enters: ``SourceFrame`` records of any reader. Leaves: a sentence to warn with, or None.
"""

from collections.abc import Sequence

from .fit import assess, explained
from .frames import recording_of
from .records import SourceFrame

_MAX_FRAMES = 6
_NUM_PIXELS = 200


def quick_check(frames: Sequence[SourceFrame], source: str) -> str | None:
    """Whether neighbouring frames contradict each other.

    Only how well frames fit as they are is looked at, not what would put them right: that is
    ``diagnose``'s work.

    Args:
        frames: of a sequence, in order; at most six of them are read.
        source: named in the sentence.

    Returns:
        A sentence that says so, or None: they agree, or too few overlap to tell.
    """
    try:
        recording = recording_of(frames, source, _MAX_FRAMES, _NUM_PIXELS)
    except ValueError:  # too few usable frames: there is nothing to compare
        return None
    fit = assess(recording)
    if not len(fit.pairs) or explained(fit):
        return None
    return (
        f'{source}: frames contradict each other (depth agrees in {fit.agreement:.0%} of what two '
        f'frames both see, {fit.reachable:.0%} if each pair is aligned): poses, depth or '
        'intrinsics may be wrong; tools/doctor.py looks for the reason'
    )
