"""Faults of random kind and strength: whatever was broken, it is not called sound.

What counts is only that frames agree less than before, by a measure of its own. So faults that
nobody thought of when the search was written are found, too.
"""

import numpy as np
import pytest

from oneformer3d.data.doctor.diagnose import FIXABLE, SOUND, diagnose_recording
from oneformer3d.data.doctor.frames import list_frames, recording_of
from tests.helpers.break_frames import depth_agreement, random_fault

NOTICEABLE = 0.06


def check(frames, seed: int) -> None:
    name, fault = random_fault(np.random.default_rng(seed))
    broken = fault(frames)
    lost = depth_agreement(frames) - depth_agreement(broken)
    diagnosis = diagnose_recording(recording_of(broken, name))
    if lost > NOTICEABLE:
        assert diagnosis.verdict != SOUND, (name, lost)
    if diagnosis.verdict == FIXABLE:
        assert diagnosis.after.share_reached >= 0.9, name


@pytest.mark.parametrize('seed', range(3))
def test_random_faults_of_a_walk(walk, seed):
    check(list_frames(walk), seed)


@pytest.mark.parametrize('seed', range(100, 101))
def test_random_faults_of_real_frames(real_frames, seed):
    check(list_frames(real_frames), seed)


@pytest.mark.slow
@pytest.mark.parametrize('seed', range(200, 212))
def test_many_random_faults_of_the_kitchen(shared_dir, seed):
    folder = shared_dir / 'data' / '7scenes_kitchen'
    if not folder.is_dir():
        pytest.skip('no kitchen frames')
    check(list_frames(folder), seed)
