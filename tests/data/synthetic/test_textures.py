"""Textures against their definitions."""

import math
from dataclasses import replace

import numpy as np
import pytest

from oneformer3d.data.synthetic.classes import SYNTHETIC_PATTERN_GROUPS
from oneformer3d.data.synthetic.textures import (
    CLASS_PATTERNS,
    CLASS_PERIOD,
    Material,
    Pattern,
    class_material,
    material_table,
    pattern_value,
    surface_color,
)

TWO_COLOURED = [Pattern.STRIPES, Pattern.CHECKER, Pattern.DOTS]


@pytest.mark.parametrize('kind', [*TWO_COLOURED, Pattern.RINGS])
def test_half_of_the_surface_has_each_colour(kind):
    s, t = np.random.default_rng(0).uniform(-50, 50, (2, 400_000))
    value = pattern_value(kind, s, t).astype(float)
    assert set(np.unique(value)) == {0.0, 1.0}
    assert value.mean() == pytest.approx(0.5, abs=0.005)


@pytest.mark.parametrize('kind', TWO_COLOURED)
def test_patterns_repeat_after_one_period(kind):
    s, t = np.random.default_rng(1).uniform(0, 1, (2, 1000))
    value = pattern_value(kind, s, t)
    np.testing.assert_array_equal(value, pattern_value(kind, s + 3, t))
    np.testing.assert_array_equal(value, pattern_value(kind, s, t - 2))


@pytest.mark.parametrize('kind', list(Pattern))
def test_values_are_shares(kind):
    s, t = np.random.default_rng(2).uniform(-9, 9, (2, 5000))
    value = pattern_value(kind, s, t).astype(float)
    assert value.min() >= 0.0
    assert value.max() <= 1.0


def test_surface_color_of_stripes_by_hand():
    red, blue = (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)
    upright = Material(Pattern.STRIPES, red, blue, period=0.1)
    level = replace(upright, angle=math.pi / 2)
    plain = Material(Pattern.SOLID, red, blue)
    uv = np.array([(0.02, 0.07), (0.07, 0.02)] * 3, dtype=np.float32)
    color = surface_color(material_table([upright, level, plain]), np.array([0, 0, 1, 1, 2, 2]), uv)
    # the first half of a period has the second colour
    np.testing.assert_allclose(color, [blue, red, red, blue, red, red], atol=1e-6)


@pytest.mark.parametrize('group', SYNTHETIC_PATTERN_GROUPS)
def test_classes_of_a_group_differ_in_pattern_and_direction_only(group):
    for seed in range(20):
        materials = [class_material(np.random.default_rng(seed), name) for name in group]
        neutral = {replace(m, pattern=Pattern.SOLID, angle=0.0) for m in materials}
        assert len(neutral) == 1
        assert CLASS_PERIOD[0] <= materials[0].period <= CLASS_PERIOD[1]
    assert len({CLASS_PATTERNS[name] for name in group}) == len(group)
