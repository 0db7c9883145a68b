"""Which semantic classes are stuff, and which have instances.

Enters: class ids of the settings. Leaves: the same, checked against each other.
"""

from collections.abc import Sequence


def checked_classes(classes: Sequence[int], num_semantic_classes: int) -> tuple[int, ...]:
    """The classes as a tuple.

    Raises:
        ValueError: one lies outside of 0…C−1.
    """
    classes = tuple(classes)
    if classes and not 0 <= min(classes) <= max(classes) < num_semantic_classes:
        raise ValueError(f'expected classes in 0…{num_semantic_classes - 1}, got {classes}')
    return classes


def instance_class_table(
    given: Sequence[int] | None, num_instance: int, num_semantic: int, stuff: Sequence[int]
) -> tuple[int, ...]:
    """The semantic class of each of ``num_instance`` instance classes.

    Raises:
        ValueError: another number of classes than the decoder predicts.
    """
    things = tuple(c for c in range(num_semantic) if c not in stuff)
    if given is None:
        given = tuple(range(num_semantic)) if num_instance == num_semantic else things

    if len(given) != num_instance:
        raise ValueError(
            f'the decoder predicts {num_instance} instance classes, but {len(given)} of '
            f'{num_semantic} semantic classes have instances ({len(stuff)} are stuff)'
        )
    return checked_classes(given, num_semantic)
