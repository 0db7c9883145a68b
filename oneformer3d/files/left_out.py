"""What is done about broken or doubtful input: left out, counted, named, too much is refused.

Enters: names of the parts (frames, scenes, objects) that cannot be used, each with its reason.
Leaves: one line that tells them, or the error that the rules ask for.
"""

from collections import Counter
from dataclasses import dataclass, field

_NUM_NAMED = 3


class LostPartsError(ValueError):
    """More of an input cannot be used than the rules allow; tools then end with status 1."""


@dataclass(frozen=True)
class LossRules:
    """How much may be lost.

    Attributes:
        strict: the first broken part is an error.
        max_lost: share of all parts, 0–1, above which their loss is an error.
        warnings_are_errors: what is assumed, left out or doubted ends the reading.
    """

    strict: bool = False
    max_lost: float = 0.2
    warnings_are_errors: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.max_lost <= 1:
            raise ValueError(f'max_lost: expected a share of 0 to 1, got {self.max_lost}')


@dataclass
class LeftOut:
    """A list of what was left out of ``where``, kept to the rules.

    Attributes:
        where: what error messages begin with.
        rules: how much may be lost.
        what: the parts' name in the plural.
        reasons: name of a part → why it is left out.

    Example:
        >>> lost = LeftOut('room', LossRules(max_lost=0.5))
        >>> lost.add('00007', 'no colour image')
        >>> lost.describe()
        '1 frames left out: no colour image 1 (00007)'
        >>> lost.check(1)  # doctest: +IGNORE_EXCEPTION_DETAIL
        Traceback (most recent call last):
        LostPartsError: room: 1 of 1 frames are unusable, more than 50 %: no colour image 1 (00007)
    """

    where: str
    rules: LossRules = LossRules()
    what: str = 'frames'
    reasons: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.reasons)

    def add(self, name: str, reason: str) -> None:
        """Leave a part out.

        Raises:
            LostPartsError: the rules are strict.
        """
        if self.rules.strict:
            raise LostPartsError(f'{self.where}: {name}: {reason}')
        self.reasons[name] = reason

    def check(self, total: int) -> None:
        """LostPartsError if more of ``total`` parts are lost than the rules allow."""
        if total and len(self) > self.rules.max_lost * total:
            raise LostPartsError(
                f'{self.where}: {len(self)} of {total} {self.what} are unusable, more than '
                f'{100 * self.rules.max_lost:g} %: {self._by_reason()}'
            )

    def describe(self) -> str:
        """How many were left out, why, and the first of them by name; empty if none."""
        return f'{len(self)} {self.what} left out: {self._by_reason()}' if self.reasons else ''

    def _by_reason(self) -> str:
        parts = []
        for reason, count in Counter(self.reasons.values()).most_common():
            names = [name for name, other in self.reasons.items() if other == reason]
            more = ', …' if count > _NUM_NAMED else ''
            parts.append(f'{reason} {count} ({", ".join(names[:_NUM_NAMED])}{more})')
        return '; '.join(parts)
