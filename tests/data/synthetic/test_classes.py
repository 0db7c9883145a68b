"""Constants of the synthetic classes."""

import pytest

from oneformer3d.data.synthetic.classes import (
    SYNTHETIC_CLASSES,
    SYNTHETIC_PALETTE,
    SYNTHETIC_PATTERN_GROUPS,
    SYNTHETIC_STUFF,
    raw_id,
)
from oneformer3d.data.synthetic.furniture import BUILDERS


def test_names_and_colours_are_one_per_class():
    assert len(set(SYNTHETIC_CLASSES)) == len(SYNTHETIC_CLASSES) == len(set(SYNTHETIC_PALETTE))
    assert SYNTHETIC_CLASSES[: len(SYNTHETIC_STUFF)] == SYNTHETIC_STUFF
    assert set(BUILDERS) == set(SYNTHETIC_CLASSES) - set(SYNTHETIC_STUFF)


def test_a_third_of_the_classes_is_told_apart_by_pattern_only():
    grouped = [name for group in SYNTHETIC_PATTERN_GROUPS for name in group]
    assert len(set(grouped)) == len(grouped)
    assert set(grouped) <= set(SYNTHETIC_CLASSES) - set(SYNTHETIC_STUFF)
    assert all(len(group) > 1 for group in SYNTHETIC_PATTERN_GROUPS)
    assert 3 * len(grouped) >= len(SYNTHETIC_CLASSES)


def test_raw_ids_count_from_one():
    assert [raw_id(name) for name in SYNTHETIC_CLASSES] == list(
        range(1, len(SYNTHETIC_CLASSES) + 1)
    )
    with pytest.raises(ValueError):
        raw_id('unicorn')
