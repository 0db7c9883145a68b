"""Does the package read a folder of posed RGB-D frames right, and if not, what is to change?

Enters: a folder, or a ``Recording`` of any reader. Leaves: a ``Diagnosis``: sound, or the fixes by
name, or that frames do not fit well, with what is known about it. P pairs of frames.

No share of agreeing depth tells a sound folder from a broken one: sensors and scenes differ too
much. Two comparisons within the folder do: with every change that can be thought of (see
``changes``), and with what aligning each pair by itself can reach (see ``fit``).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .align import align_mount, motion_size
from .changes import Change, factor_change, mount_change, pose_scale_change
from .colors import ColorReading, read_colors
from .fit import LEAST_AGREEMENT, LEAST_REACHED, Fit, assess, explained, without_each
from .frames import load_recording
from .records import Recording, read
from .search import search_changes, search_together

SOUND, FIXABLE, UNFIT = 'sound', 'fixable', 'does not fit well'

_LEAST_COVERAGE = 0.003  # of all pixels of all pairs, below it nothing can be told
_GOOD_AGREEMENT = 0.93  # a search that reaches it need not try kinds of change together
_LEAST_GAIN = 0.03  # of agreement, that a change must be worth
_SOUND_GAIN = 0.06  # where nothing else is wrong: small errors of calibration are no fault
_SOUND_LEFT = 0.3  # or so much of the disagreement may be left
_LEFT = 0.6  # of the way to what can be reached may be left by a change
_SHARED = 0.8  # of the pixels that agreed must still do so after a change
_AS_GOOD = 0.015
_OFTEN = ('time', 'depth: multiply', 'poses', 'K', '')
_NARROW = 0.3
_USUAL_FACTORS = (
    *(1e-3, 1e-2, 0.1, 1 / 6.5535, 0.2, 0.25, 0.3048, 1000 / 2**16, 0.5),
    *(2.0, 2.54, 1 / 0.3048, 4.0, 5.0, 6.5535, 10.0, 100.0, 1e3, 1e4),
)
_USUAL_WITHIN = 0.025
_ROOM_DEPTH, _USUAL_DEPTH = (0.3, 12.0), 2.0  # metres
_MUCH_FARTHER = np.log(2)  # from the usual depth: then it is the poses that have another unit
_NUM_QUICK_PIXELS = 150
_MAX_CHANGES = 3
_NUM_TRIED = 8
_OUTLIER = 0.55  # of the agreement of the other frames
_LEAST_FRAMES = 8  # that two parts must have together to be told apart
_LEAST_ACROSS = 4  # pairs that must overlap to tell whether two parts contradict each other
_JUMP = 0.72  # of the agreement within two parts, below it across they contradict each other
_NUM_NAMED = 8
_MAX_OUTLIERS = 0.34  # of the frames
_MAX_NOT_RIGID = 0.1  # of the poses


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """What was found.

    Attributes:
        verdict: ``SOUND``, ``FIXABLE`` or ``UNFIT``.
        before, after: how well frames agree as they are and after the changes.
        changes: that make the package read the folder right.
        color: how colour is to be laid over depth.
        drop_clipped: value of depth that means "this far or farther" and is to be dropped, or 0.
        transposed: whether poses are to be transposed first.
        outliers: names of frames whose poses contradict all others.
        reasons: what is wrong, in words; empty for a sound folder.
        num_frames, num_lost, num_not_rigid, num_unreadable: looked at and left out.
    """

    verdict: str
    before: Fit
    after: Fit
    changes: tuple[Change, ...]
    color: ColorReading
    drop_clipped: float
    transposed: bool
    outliers: tuple[str, ...]
    reasons: tuple[str, ...]
    num_frames: int
    num_lost: int
    num_not_rigid: int
    num_unreadable: int

    @property
    def fixes(self) -> tuple[str, ...]:
        """What to do, in words; nothing where nothing known would put it right."""
        if self.verdict == UNFIT:
            return ()
        texts = ['poses: transpose them, their translation stands in the last row']
        texts = texts if self.transposed else []
        texts += [change.text for change in self.changes]
        if self.color.text:
            texts.append(f'colour: {self.color.text}')
        if self.drop_clipped:
            texts.append(f'depth: take the value {self.drop_clipped:g} as missing')
        return (*texts, *(f'leave out frame {name}' for name in self.outliers))


def diagnose(folder: str | Path, max_frames: int = 24, num_pixels: int = 300) -> Diagnosis:
    """Look for what is wrong with a folder.

    Args:
        folder: in one of the layouts of ``posed_rgbd``.
        max_frames: looked at; of a longer sequence groups of neighbours are taken.
        num_pixels: of each frame.

    Raises:
        FileNotFoundError: no such folder, or not a known layout.
        ValueError: fewer than two usable frames, or files that cannot be read as numbers.
    """
    return diagnose_recording(load_recording(folder, max_frames, num_pixels))


def diagnose_recording(recording: Recording) -> Diagnosis:
    """As ``diagnose``, of frames that any reader found."""
    before = assess(recording)
    after = before
    while len(after.changes) < _MAX_CHANGES:
        better = _better(recording, after)
        if better is None:
            break
        after = better

    outliers = find_outliers(after)
    if outliers.any():
        after = assess(recording, after.changes, keep=after.kept & ~outliers)
    shift = _frame_shift(after.changes)
    _, color = read_colors(recording, after.changes, shift)
    reasons = tuple(_reasons(recording, before, after, outliers))
    fixed = bool(after.changes or color.text or outliers.any() or recording.transposed) or bool(
        recording.clipped_at
    )
    return Diagnosis(
        verdict=UNFIT if reasons else FIXABLE if fixed else SOUND,
        before=before,
        after=after,
        changes=after.changes,
        color=color,
        drop_clipped=recording.clipped_at,
        transposed=recording.transposed,
        outliers=tuple(name for name, out in zip(recording.names, outliers) if out),
        reasons=reasons,
        num_frames=len(recording.chosen),
        num_lost=recording.num_lost,
        num_not_rigid=recording.num_not_rigid,
        num_unreadable=recording.num_unreadable,
    )


def _better(recording: Recording, now: Fit) -> Fit | None:
    """The fit after one more change that is clearly better, or None."""
    first = not now.changes
    now = assess(recording, now.changes, _NUM_QUICK_PIXELS)
    candidates = [f.changes for f in search_changes(recording, now.changes, poses=first)]
    candidates = candidates[:_NUM_TRIED]
    if len(now.pairs):
        mount = align_mount(recording.arrays, read(recording, now.changes), now.pairs, 60)
        length, angle = motion_size(mount[None])
        text = f'poses: are of another camera, {100 * length[0]:.3g} cm and {angle[0]:.3g}° away'
        candidates.append((*now.changes, mount_change(mount, text)))
    tried = _clearly_better(recording, now, candidates)
    if first and max(t.agreement for t in (now, *tried)) < _GOOD_AGREEMENT:
        together = [found.changes for found in search_together(recording)]
        tried += _clearly_better(recording, now, together)
    if not tried:
        return None

    # of changes that are worth the same the simplest
    most = max(_worth(t) for t in tried)
    as_good = [t for t in tried if _worth(t) > most - _AS_GOOD]
    best = min(as_good, key=lambda t: (len(t.changes), _rank(t.changes[-1]), -_worth(t)))
    return assess(recording, simplified(recording, best.changes))


def _clearly_better(
    recording: Recording, now: Fit, candidates: Sequence[tuple[Change, ...]]
) -> list[Fit]:
    tried = [_assessed(recording, now, changes) for changes in candidates]
    return [fit for fit in tried if fit is not None]


def _rank(change: Change) -> int:
    """How far a change is from what happens often: time, units and axes before cameras."""
    if 'camera by' in change.text or 'another camera' in change.text:
        return len(_OFTEN)
    return next(i for i, kind in enumerate(_OFTEN) if change.text.startswith(kind))


def simplified(recording: Recording, changes: tuple[Change, ...]) -> tuple[Change, ...]:
    """The changes with factors of depth as people have them, and of poses where those are off."""
    depth = recording.arrays.depth
    typical = float(np.median(depth[depth > 0])) * recording.metres
    simple = []
    for change in changes:
        if change.factor == 1.0:
            simple.append(change)
            continue
        factor = min(_USUAL_FACTORS, key=lambda usual: abs(np.log(usual / change.factor)))
        if abs(np.log(factor / change.factor)) > _USUAL_WITHIN:
            factor = change.factor
        # depth of a few metres is right already: then it is the poses that have another unit
        rooms = _ROOM_DEPTH[0] < typical < _ROOM_DEPTH[1]
        still = _ROOM_DEPTH[0] < typical * factor < _ROOM_DEPTH[1]
        farther = abs(np.log(typical * factor / _USUAL_DEPTH)) - abs(np.log(typical / _USUAL_DEPTH))
        of_poses = rooms and (not still or farther > _MUCH_FARTHER)
        simple.append(pose_scale_change(1 / factor) if of_poses else factor_change(factor))
    return tuple(simple)


def _assessed(recording: Recording, now: Fit, changes: tuple[Change, ...]) -> Fit | None:
    """The fit after changes if it is clearly better than now."""
    fit = assess(recording, changes, _NUM_QUICK_PIXELS)
    # frames that lose their pose by the change prove nothing
    same = now if fit.kept.sum() == now.kept.sum() else _same(recording, now, fit)
    reachable = max(fit.reachable, same.reachable)
    gain = fit.agreement - same.agreement
    enough = (
        (not now.changes and not explained(same))
        or gain >= _SOUND_GAIN
        or 1 - fit.agreement <= _SOUND_LEFT * (1 - same.agreement)
    )
    clear = (
        enough
        and gain >= _LEAST_GAIN
        # what helps two frames only is a coincidence
        and (without_each(fit) - without_each(same)).min() >= gain / 2
        and reachable - fit.agreement <= _LEFT * (reachable - same.agreement)
        and fit.shared >= _SHARED * same.shared
        and fit.coverage >= _LEAST_COVERAGE
        and _worth(fit) > _worth(same) + _LEAST_GAIN / 2
    )
    return fit if clear else None


def _same(recording: Recording, now: Fit, fit: Fit) -> Fit:
    return assess(recording, now.changes, _NUM_QUICK_PIXELS, keep=fit.kept)


def _worth(fit: Fit) -> float:
    """Agreement of depth and brightness; a narrow view is easier to explain and worth less."""
    return float(fit.agreement * (1 + fit.correlation) / 2 * fit.coverage**_NARROW)


def find_outliers(fit: Fit) -> NDArray[np.bool_]:
    """(F,) frames that agree much less with the others than those with each other."""
    out = np.zeros(len(fit.kept), dtype=bool)
    agreeing = fit.of_pairs * fit.weights
    while True:
        inside = ~out[fit.pairs].any(axis=1)
        frames = fit.pairs[inside]
        counts = [
            np.bincount(frames.reshape(-1), np.repeat(values[inside], 2), len(out))
            for values in (agreeing, fit.weights.astype(np.float64))
        ]
        seen = counts[1] > 0
        share = np.where(seen, counts[0] / np.maximum(counts[1], 1), 1.0)
        if seen.sum() < 4:
            return np.zeros_like(out)
        worst = int(np.where(seen, share, 2).argmin())
        if share[worst] >= _OUTLIER * np.median(share[seen & (np.arange(len(out)) != worst)]):
            return out
        out[worst] = True


def find_jump(fit: Fit) -> tuple[int, float]:
    """Where a sequence falls into two parts that contradict each other.

    Returns:
        the first frame of the second part, and how much pairs across agree relative to pairs
        within the parts (1 if there is nothing to compare).
    """
    first, second = fit.everything.pairs.min(axis=1), fit.everything.pairs.max(axis=1)
    worst = (0, 1.0)
    if fit.kept.sum() < _LEAST_FRAMES:
        return worst
    for start in range(2, len(fit.kept) - 1):
        across = (first < start) & (second >= start)
        agreeing, testable = (
            (values[across].sum(), values[~across].sum())
            for values in (fit.everything.agreeing, fit.everything.testable)
        )
        num_seen = int((fit.everything.testable[across] > 0.03 * fit.everything.num_pixels).sum())
        if num_seen < _LEAST_ACROSS or not testable[0] or not agreeing[1]:
            continue
        ratio = (agreeing[0] / testable[0]) / (agreeing[1] / testable[1])
        worst = min(worst, (start, float(ratio)), key=lambda found: found[1])
    return worst


def _frame_shift(changes: Sequence[Change]) -> int:
    """Whole frames by which changes of time move poses, or 0."""
    shift = 0.0
    for change in changes:
        if change.positions is not None:
            shift += float(change.positions(np.array([1000.0]), 2001)[0]) - 1000
    return round(shift) if abs(shift) < 50 else 0


def _reasons(
    recording: Recording, before: Fit, after: Fit, outliers: NDArray[np.bool_]
) -> Iterator[str]:
    """Why a folder does not fit well, even after its changes."""
    if after.coverage < _LEAST_COVERAGE or not len(after.pairs):
        yield 'hardly any two frames see the same: either they do not, or the poses are wrong'
        return

    num_finite = len(recording.frames) - recording.num_lost
    if recording.num_not_rigid > _MAX_NOT_RIGID * num_finite:
        yield f'{recording.num_not_rigid} of {num_finite} poses are no rigid motions (rounded?)'
    if outliers.sum() > _MAX_OUTLIERS * len(outliers):
        yield (
            f'{outliers.sum()} of {len(outliers)} frames contradict the others: '
            'are two recordings mixed?'
        )

    num_unseen = len(recording.frames) - len(outliers)
    if outliers.any() and num_unseen:
        names = [name for name, out in zip(recording.names, outliers) if out]
        yield (
            f'{outliers.sum()} of {len(outliers)} frames contradict the others ({_some(names)}), '
            f'and of the {num_unseen} that were not looked at some may, too: look at all '
            f'(--max-frames {len(recording.frames)})'
        )

    start, ratio = find_jump(after)
    if ratio < _JUMP:
        yield (
            f'frames before {recording.names[start]} contradict those from there on '
            f'({ratio:.0%} of the agreement within each part): poses jump there'
        )

    if after.agreement < LEAST_AGREEMENT:
        yield f'depth agrees in {after.agreement:.0%} of what two frames both see'
    if after.share_reached < LEAST_REACHED:
        yield (
            f'poses lack {np.median(after.centimetres):.1f} cm and '
            f'{np.median(after.degrees):.2f}° (median of pairs): aligned pair by pair, '
            f'{after.reachable:.0%} agree instead of {after.agreement:.0%}'
        )
        yield from _drift(after)


def _some(names: Sequence[str]) -> str:
    return ', '.join(names[:_NUM_NAMED]) + (', …' if len(names) > _NUM_NAMED else '')


def _drift(fit: Fit) -> Iterator[str]:
    """Whether pairs far apart in time are worse than neighbours."""
    gap = np.abs(fit.pairs[:, 0] - fit.pairs[:, 1])
    near, far = gap <= np.quantile(gap, 0.3), gap >= np.quantile(gap, 0.7)
    lack = fit.reachable_of_pairs - fit.of_pairs
    if near.any() and far.any() and lack[far].mean() > 2 * lack[near].mean() + 0.05:
        yield (
            f'drift: neighbours lack {np.median(fit.centimetres[near]):.1f} cm, frames far apart '
            f'{np.median(fit.centimetres[far]):.1f} cm'
        )


def describe(diagnosis: Diagnosis) -> str:
    """The diagnosis as text for a terminal."""
    before, after = diagnosis.before, diagnosis.after
    lines = [
        f'{diagnosis.num_frames} frames compared in {len(before.pairs)} pairs; left out: '
        f'{diagnosis.num_lost} poses of inf or nan, {diagnosis.num_not_rigid} that are no rigid '
        f'motion, {diagnosis.num_unreadable} unreadable images',
        f'depth agrees: {before.agreement:.1%} as it is, {before.reachable:.1%} with every pair '
        'aligned by itself',
    ]

    if diagnosis.verdict != SOUND:
        lines.append(f'after the fixes: {after.agreement:.1%}, aligned {after.reachable:.1%}')
    lines.append(
        f'alignment moves pairs by {np.median(after.centimetres):.1f} cm and '
        f'{np.median(after.degrees):.2f}° (median)'
        if len(after.pairs)
        else 'no pairs to align'
    )

    lines += ['', f'verdict: {diagnosis.verdict}']
    lines += [f'because: {reason}' for reason in diagnosis.reasons]
    lines += [f'fix: {text}' for text in diagnosis.fixes]
    if diagnosis.verdict == SOUND:
        lines.append('nothing to fix: the package reads this folder as it is')
    return '\n'.join(lines)
