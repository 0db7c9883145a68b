"""The doctor: rooms broken on purpose in every way, and real frames."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from oneformer3d.data.doctor.diagnose import diagnose
from oneformer3d.data.doctor.frames import choose_frames
from oneformer3d.data.doctor.intrinsics import implied_size, resized
from oneformer3d.data.posed_rgbd import read_matrix

FLIP = np.diag([1.0, -1.0, -1.0, 1.0])
WORLD_TO_CAMERA, OPENGL = 'world to camera', 'OpenGL'


@pytest.fixture
def room(tiny_rooms, tmp_path) -> Path:
    source = sorted((tiny_rooms / 'posed_images').iterdir())[0]
    return Path(shutil.copytree(source, tmp_path / 'room'))


def pose_files(room: Path) -> list[Path]:
    return sorted(path for path in room.glob('*.txt') if path.stem.isdigit())


def change_poses(room: Path, change) -> None:
    for path in pose_files(room):
        np.savetxt(path, change(read_matrix(path, 4)))


def change_depth(room: Path, change) -> None:
    for path in pose_files(room):
        path = path.with_suffix('.png')
        depth = np.asarray(Image.open(path)).astype(np.float64)
        Image.fromarray(np.round(change(depth)).astype(np.uint16)).save(path)


def test_a_sound_room_needs_nothing(room):
    diagnosis = diagnose(room)
    assert diagnosis.fits
    assert diagnosis.fixes == ()
    assert diagnosis.rivals == ()
    assert diagnosis.best.agreement > 0.9
    assert diagnosis.best.correlation > 0.6


@pytest.mark.parametrize('inverted', [False, True])
@pytest.mark.parametrize('opengl', [False, True])
def test_direction_and_axes(room, inverted, opengl):
    def change(pose):
        pose = pose @ FLIP if opengl else pose
        return np.linalg.inv(pose) if inverted else pose

    originals = [read_matrix(path, 4) for path in pose_files(room)]
    change_poses(room, change)
    diagnosis = diagnose(room)
    assert diagnosis.fits
    assert (diagnosis.best.direction == WORLD_TO_CAMERA) == inverted
    assert (diagnosis.best.axes == OPENGL) == opengl
    assert len(diagnosis.fixes) == (inverted or opengl)
    for fix in diagnosis.fixes:  # the formula, taken at its word, gives the right poses
        formula = fix.removeprefix('replace every pose by ')
        names = {'inv': np.linalg.inv, 'diag': lambda *values: np.diag(values)}
        for path, original in zip(pose_files(room), originals):
            fixed = eval(formula, {**names, 'pose': read_matrix(path, 4)})
            np.testing.assert_allclose(fixed, original, atol=1e-6)


@pytest.mark.parametrize(('divisor', 'factor'), [(5000, '0.2'), (4000, '0.25'), (10000, '0.1')])
def test_depth_units(room, divisor, factor):
    change_depth(room, lambda depth: depth * divisor / 1000)
    diagnosis = diagnose(room)
    assert diagnosis.best.divisor == divisor
    assert diagnosis.fixes == (f'multiply depth by {factor} to have millimetres',)


def test_poses_in_millimetres(room):
    change_poses(room, lambda pose: pose * np.array([[1, 1, 1, 1000]] * 3 + [[1, 1, 1, 1]]))
    diagnosis = diagnose(room)
    assert diagnosis.best.divisor == 1
    assert 'divide the translations' in diagnosis.fixes[0]


def test_transposed_poses(room):
    change_poses(room, np.transpose)
    diagnosis = diagnose(room)
    assert diagnosis.fits
    assert len(diagnosis.fixes) == 1
    assert 'transpose' in diagnosis.fixes[0]


@pytest.mark.parametrize('names', [['intrinsic.txt'], ['intrinsic.txt', 'depth_intrinsic.txt']])
def test_intrinsics_of_a_larger_image(room, names):
    size = Image.open(pose_files(room)[0].with_suffix('.png')).size[::-1]
    double = (2 * size[0], 2 * size[1])
    for name in names:
        np.savetxt(room / name, resized(read_matrix(room / name, 3), size, double))
    diagnosis = diagnose(room)
    assert diagnosis.fits
    fixes = ' '.join(diagnosis.fixes)
    resizing = f'resized from {double[0]}×{double[1]}'
    if len(names) == 2:
        assert resizing in diagnosis.best.intrinsics
        assert 'give the depth images the intrinsics' in fixes
    else:
        assert diagnosis.best.intrinsics == 'of the depth file'
        assert 'depth images' not in fixes
    assert 'give the colour images the intrinsics' in fixes


def test_poses_of_other_frames_fit_nothing(room):
    paths = pose_files(room)
    poses = [read_matrix(path, 4) for path in paths]
    rng = np.random.default_rng(0)
    for path, pose in zip(paths, poses[1:] + poses[:1]):
        rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        pose[:3, :3] = rotation * np.linalg.det(rotation)
        np.savetxt(path, pose)
    assert not diagnose(room).fits


def test_bad_poses_and_images_are_counted(room):
    paths = pose_files(room)
    np.savetxt(paths[0], np.full((4, 4), np.inf))
    paths[1].with_suffix('.jpg').write_bytes(b'no image')
    diagnosis = diagnose(room)
    assert (diagnosis.num_bad_poses, diagnosis.num_unreadable) == (1, 1)
    assert diagnosis.num_frames == len(paths) - 2
    for path in paths[1:]:
        path.unlink()
    with pytest.raises(ValueError, match='0 usable frames'):
        diagnose(room)


def test_real_frames_fit(real_frames):
    diagnosis = diagnose(real_frames)
    assert diagnosis.fits
    assert diagnosis.fixes == ()
    assert diagnosis.rivals == ()


def test_real_frames_with_the_pose_of_their_neighbour_do_not_fit(real_frames, tmp_path):
    for path in real_frames.iterdir():
        (tmp_path / path.name).symlink_to(path)
    poses = sorted(tmp_path.glob('*.pose.txt'))
    for path, other in zip(poses, [*poses[2:], *poses[:2]]):
        path.unlink()
        path.symlink_to(real_frames / other.name)
    assert not diagnose(tmp_path).fits


def test_kitchen(shared_dir):
    """Real frames: nothing to fix, and the colour camera is told from the depth camera."""
    folder = shared_dir / 'data' / '7scenes_kitchen'
    if not folder.is_dir():
        pytest.skip('no kitchen frames')
    diagnosis = diagnose(folder)
    assert diagnosis.fits
    assert diagnosis.fixes == ()
    assert diagnosis.rivals == ()
    assert diagnosis.color_readings[0].intrinsics == 'known of this kind of recording'
    assert diagnosis.color_readings[0].edges > 1.5 * diagnosis.color_readings[1].edges


def test_groups_of_neighbours_in_long_sequences():
    chosen, groups = choose_frames(1000, 24)
    assert len(chosen) <= 24
    assert len(set(groups)) == 4
    assert max(chosen) < 1000
    by_group = [[c for c, g in zip(chosen, groups) if g == group] for group in set(groups)]
    assert all(max(members) - min(members) <= 20 for members in by_group)
    assert choose_frames(7, 24) == (list(range(7)), [0] * 7)


def test_resized_intrinsics_follow_the_pixel_centres():
    matrix = np.array([[500.0, 0, 319.5], [0, 500, 239.5], [0, 0, 1]])
    assert implied_size(matrix) == (480, 640)
    half = resized(matrix, (480, 640), (240, 320))
    np.testing.assert_allclose(half, [[250, 0, 159.5], [0, 250, 119.5], [0, 0, 1]])
