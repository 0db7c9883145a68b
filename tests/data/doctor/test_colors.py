"""Colour of another moment than depth: found by the outlines that both show."""

import pytest

from oneformer3d.data.doctor.colors import read_colors
from oneformer3d.data.doctor.frames import list_frames, recording_of
from tests.helpers.kitchen_faults import colors_late


def test_colour_as_it_is_stays(real_frames):
    asis, best = read_colors(recording_of(list_frames(real_frames), 'frames'))
    assert best is asis


@pytest.mark.parametrize('late', [1, 2])
def test_late_colour_is_named(real_frames, late):
    frames = colors_late(late)(list_frames(real_frames))
    _, best = read_colors(recording_of(frames, 'late'))
    assert best.frame_shift == late
    assert f'colour image of frame i+{late}' in best.text
