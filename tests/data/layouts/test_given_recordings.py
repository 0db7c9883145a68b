"""Recordings that people have: each gives its right cloud, or a word about what is wrong."""

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial import cKDTree

from oneformer3d.data.fuse_rgbd import fuse
from oneformer3d.data.layouts import PosedFolder, find_layout

SHARED = Path(__file__).resolve().parents[3].parent / 'shared'
CASES, FOREIGN = SHARED / 'cases', SHARED / 'data' / 'foreign'

needs_cases = pytest.mark.skipif(not CASES.is_dir(), reason='the cases are not here')
needs_foreign = pytest.mark.skipif(not FOREIGN.is_dir(), reason='the samples are not here')


@pytest.fixture(scope='module')
def room() -> cKDTree:
    """The room that the cases show, from float depth in metres (case 17)."""
    return cKDTree(fuse(find_layout(CASES / '17' / 'float'))[0][:, :3])


def _distance(found: PosedFolder, room: cKDTree) -> float:
    return float(np.median(room.query(fuse(found)[0][:, :3])[0]))


@needs_cases
@pytest.mark.parametrize(
    ('folder', 'options', 'most'),
    [
        ('13/phone', {}, 0.011),
        ('15/tum', {'depth_scale': 5000}, 0.001),
        ('16/stamps', {}, 0.001),
        ('21/gl', {'convention': 'opengl'}, 0.001),
        ('23/ns', {}, 0.001),
    ],
)
def test_sound_recordings_are_the_room(room, folder, options, most):
    found = find_layout(CASES / folder, **options)
    assert found.warnings == ()
    assert _distance(found, room) <= most


@needs_cases
@pytest.mark.parametrize(
    ('folder', 'word'),
    [
        ('15/tum', '--depth-scale 5000'),
        ('20/seq-01', 'taken are those of 7-Scenes'),
        ('21/gl', '--convention opengl'),
    ],
)
def test_doubtful_recordings_are_warned_about(folder, word):
    (warning,) = find_layout(CASES / folder).warnings
    assert word in warning


@needs_foreign
@pytest.mark.parametrize(
    ('folder', 'source', 'options', 'words'),
    [
        ('slambook2/ch5', 'slambook2', {'intrinsics': '518 519 325.5 253.5'}, ()),
        (
            'slambook2/ch12',
            'slambook2',
            {'intrinsics': '481.2 -480 319.5 239.5', 'depth_scale': 5000},
            ('mirrored (5 frames)',),
        ),
        ('open3d_rgbd/RGBD', 'Redwood', {}, ('PrimeSense',)),
        ('nvblox_3dmatch/3dmatch', '3DMatch', {}, ()),
    ],
)
def test_samples_of_other_projects(folder, source, options, words):
    found = find_layout(FOREIGN / folder, **options)
    assert source in found.source
    assert len(found.frames) == 5
    assert len(found.warnings) == len(words)
    assert all(word in warning for word, warning in zip(words, found.warnings))
    assert len(fuse(found, 0.05)[0]) > 3000


@needs_foreign
def test_sample_without_intrinsics_asks_for_them():
    with pytest.raises(
        ValueError, match=r'slambook2 .*no intrinsics lie there; state --intrinsics'
    ):
        find_layout(FOREIGN / 'slambook2' / 'ch5')
