"""The doctor: a walk broken on purpose in many ways, and real frames."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from oneformer3d.data.doctor import align, compare, fit, records, search
from oneformer3d.data.doctor import diagnose as diagnose_module
from oneformer3d.data.doctor.compare import project
from oneformer3d.data.doctor.diagnose import (
    FIXABLE,
    SOUND,
    UNFIT,
    Diagnosis,
    diagnose,
    diagnose_recording,
    find_outliers,
)
from oneformer3d.data.doctor.fit import assess
from oneformer3d.data.doctor.fix import fixed_poses
from oneformer3d.data.doctor.frames import list_frames, recording_of
from oneformer3d.data.doctor.quick import quick_check
from oneformer3d.data.doctor.records import read
from tests.helpers import break_frames as broken
from tests.helpers.break_frames import Fault, Frames, depth_agreement
from tests.helpers.walk_scenes import write_walk

FLIP = np.diag([1.0, -1.0, -1.0, 1.0])


def examine(frames: Frames) -> Diagnosis:
    return diagnose_recording(recording_of(frames, 'the test'))


@pytest.fixture(scope='module')
def frames(walk) -> Frames:
    return list_frames(walk)


@pytest.mark.parametrize('name', ['walk', 'real_frames', 'nvblox', 'open3d'])
def test_sound_folders_are_called_sound(name, request):
    if name in ('walk', 'real_frames'):
        folder = request.getfixturevalue(name)
    else:
        foreign = request.getfixturevalue('shared_dir') / 'data' / 'foreign'
        place = {'nvblox': 'nvblox_3dmatch/3dmatch/seq-01', 'open3d': 'open3d_rgbd/RGBD'}[name]
        folder = foreign / place
        if not folder.is_dir():
            pytest.skip('no such sample')
    diagnosis = diagnose(folder)
    assert diagnosis.verdict == SOUND
    assert (diagnosis.fixes, diagnosis.reasons) == ((), ())
    assert quick_check(list_frames(folder), str(folder)) is None


def test_agreement_is_that_of_the_slow_twin(frames):
    recording = recording_of(frames, 'the test')
    found = assess(recording)
    assert found.agreement > 0.98
    assert depth_agreement(frames) > 0.98
    noisy = broken.noisy_poses(5, 2)(frames)
    found = assess(recording_of(noisy, 'the test'))
    near = np.abs(np.diff(found.pairs, axis=1))[:, 0] == 1
    ours = (found.of_pairs * found.weights)[near].sum() / found.weights[near].sum()
    assert abs(ours - depth_agreement(noisy)) < 0.1


# what is fixed is compared with the true poses, up to where the world lies
FIXED_POSES = {
    'inverted OpenGL': broken.change_poses(lambda poses: np.linalg.inv(poses @ FLIP)),
    'left-handed': broken.mirrored_poses(1),
    'wxyz': broken.reordered_quaternions(1),
    'transposed': broken.change_poses(lambda poses: poses.swapaxes(1, 2)),
}


@pytest.mark.parametrize('name', FIXED_POSES)
def test_conventions_of_poses_are_undone(name, frames):
    diagnosis = examine(FIXED_POSES[name](frames))
    assert diagnosis.verdict == FIXABLE
    fixed = fixed_poses(FIXED_POSES[name](frames), diagnosis)
    true = np.array([frame.pose for frame in frames])
    np.testing.assert_allclose(relative(fixed), relative(true), atol=0.02)


def relative(poses: np.ndarray) -> np.ndarray:
    return np.linalg.inv(poses[0]) @ poses


NAMED: dict[str, tuple[Fault, str]] = {
    'tum': (broken.scale_depth(5), 'depth: multiply by 0.2'),
    'too deep': (broken.scale_depth(1.4), 'depth: multiply by 0.7'),
    'poses in mm': (
        broken.change_poses(lambda p: p * np.array([[1, 1, 1, 1000]] * 3 + [[1, 1, 1, 1]])),
        'poses: multiply their translations by 0.001',
    ),
    'K transposed': (broken.change_intrinsics(np.transpose), 'K: transpose it'),
    'poses late': (broken.late_poses(2), 'time: frame i has the pose of frame i+2'),
    'depth late': (broken.late_depth(1), 'colour: take the colour image of frame i-1'),
    'rolled': (broken.other_camera([0, 0, 0], [0, 0, 25]), 'poses: '),
    'foreign': (broken.foreign_poses(5), 'leave out frame 000002'),
}


@pytest.mark.parametrize('name', NAMED)
def test_faults_are_named(name, frames):
    fault, text = NAMED[name]
    diagnosis = examine(fault(frames))
    assert diagnosis.verdict == FIXABLE
    assert any(fix.startswith(text) for fix in diagnosis.fixes), diagnosis.fixes
    assert diagnosis.after.agreement > 0.95


UNFIT_FAULTS: dict[str, tuple[Fault, str]] = {
    'noise': (broken.noisy_poses(4, 1.5), 'cm'),
    'jump': (broken.drifted_half(0.3, 5), 'poses jump'),
}


@pytest.mark.parametrize('name', UNFIT_FAULTS)
def test_what_nothing_puts_right_is_refused(name, frames):
    fault, text = UNFIT_FAULTS[name]
    diagnosis = examine(fault(frames))
    assert diagnosis.verdict == UNFIT
    assert diagnosis.fixes == ()
    assert any(text in reason for reason in diagnosis.reasons), diagnosis.reasons


def test_outliers_are_those_that_were_put_there(frames):
    found = assess(recording_of(broken.foreign_poses(5)(frames), 'the test'))
    assert np.flatnonzero(find_outliers(found)).tolist() == [2, 7]


def test_images(frames, tmp_path):
    mirrored = broken.change_colors(tmp_path / 'mirrored', lambda image: image[:, ::-1])(frames)
    assert 'colour: mirror the colour images left to right' in examine(mirrored).fixes
    clipped = broken.change_depth(tmp_path / 'clipped', lambda d: np.minimum(d, 2000))(frames)
    assert 'depth: take the value 2000 as missing' in examine(clipped).fixes


def test_bad_poses_and_images_are_counted(frames, tmp_path):
    (tmp_path / 'no.png').write_bytes(b'no image')
    changed = [
        replace(frames[0], pose=np.full((4, 4), np.inf)),
        replace(frames[1], color_path=tmp_path / 'no.png'),
        *frames[2:],
    ]
    diagnosis = examine(changed)
    assert (diagnosis.num_lost, diagnosis.num_unreadable) == (1, 1)
    assert diagnosis.num_frames == len(frames) - 2
    with pytest.raises(ValueError, match='0 usable frames'):
        recording_of(changed[:1], 'the test')


def test_quick_check_warns(frames):
    assert 'contradict' in str(quick_check(FIXED_POSES['inverted OpenGL'](frames), 'it'))
    assert 'contradict' in str(quick_check(broken.scale_depth(2)(frames), 'it'))


# of 24 frames: about 20 seconds of one processor at 640×480
MOST_PROJECTED = 60_000_000  # pixels taken from one frame into another
MOST_CHANGED = 250  # times that all depth images are gone over


@pytest.mark.parametrize('name', ['identity', 'bytes swapped'])
def test_work_is_bounded_whatever_lies_there(name, tmp_path, monkeypatch):
    """Where all frames see the same every pair overlaps, and one change leads to the next."""
    fault = {
        'identity': broken.change_poses(lambda poses: np.tile(np.eye(4), (len(poses), 1, 1))),
        'bytes swapped': broken.change_depth(tmp_path / 'swapped', lambda d: d.byteswap()),
    }[name]
    frames = fault(list_frames(write_walk(tmp_path / 'walk', 24)))
    recording = recording_of(frames, 'the test')
    assert len(recording.chosen) == 24
    work = {'projected': 0, 'changed': 0}

    def counted_project(arrays, reading, pairs, num_pixels=None, corrections=None):
        work['projected'] += len(pairs) * (num_pixels or arrays.pixels.shape[1])
        return project(arrays, reading, pairs, num_pixels, corrections)

    def counted_read(recording, changes=()):
        work['changed'] += sum(change.depth is not None for change in changes)
        return read(recording, changes)

    for module in (compare, align):
        monkeypatch.setattr(module, 'project', counted_project)
    for module in (fit, search, records, diagnose_module):
        monkeypatch.setattr(module, 'read', counted_read)
    assert diagnose_recording(recording).verdict != SOUND
    assert work['projected'] < MOST_PROJECTED
    assert work['changed'] < MOST_CHANGED


def test_a_folder_that_is_none(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match='no posed RGB-D frames'):
        diagnose(tmp_path)
