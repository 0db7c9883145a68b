"""Broken frames and folders: one policy, named reasons, only the package's own errors."""

import contextlib
import json
import logging

import numpy as np
import pytest
from mmengine.logging import MMLogger
from PIL import Image

from oneformer3d.data.convert.posed_rgbd_dataset import convert_posed_rgbd, find_sequences
from oneformer3d.data.infos import read_infos
from oneformer3d.data.layouts import find_layout
from oneformer3d.data.scan import read_scan
from oneformer3d.data.scenes import read_scenes
from oneformer3d.fields.scene.folder import load_field_scene
from oneformer3d.files.left_out import LeftOut, LossRules
from tests.data.layouts.test_find import WRITERS
from tests.helpers import foreign_layouts as foreign
from tests.helpers.rgbd_scenes import K, distance_to_walls, render_views, write_posed_images


def test_lost_frames_are_counted_named_and_refused_when_many(tmp_path):
    folder = write_posed_images(tmp_path / 'room', render_views(10))
    (folder / '00003.jpg').unlink()
    np.savetxt(folder / '00005.txt', 2 * np.eye(4))
    found = find_layout(folder)
    assert dict(found.left_out) == {
        '00003': 'no colour image',
        '00005': 'the pose is no rigid motion',
    }
    (folder / '00005.txt').write_text('1 2 x')
    assert '00005.txt: not a matrix' in dict(find_layout(folder).left_out)['00005']
    assert any('2 frames left out' in w and '(00003)' in w for w in found.warnings)
    with pytest.raises(ValueError, match=r'room: 00003: no colour image'):
        find_layout(folder, rules=LossRules(strict=True))
    (folder / '00007.png').write_bytes(b'')
    with pytest.raises(ValueError, match=r'3 of 10 frames are unusable, more than 20 %'):
        find_layout(folder)
    assert len(find_layout(folder, rules=LossRules(max_lost=0.3)).frames) == 7


def test_lost_tracking_is_no_damage(tmp_path):
    """A scanner writes inf where it lost track: left out and counted, however many there are."""
    folder = write_posed_images(tmp_path / 'room', render_views(10))
    for index in range(5):
        np.savetxt(folder / f'{index:05d}.txt', np.full((4, 4), -np.inf))
    found = find_layout(folder)
    assert found.num_dropped_poses == 5
    assert any('5 frames left out: tracking lost' in warning for warning in found.warnings)


def test_rules_are_checked():
    with pytest.raises(ValueError, match='max_lost'):
        LossRules(max_lost=20)
    lost = LeftOut('root', what='scenes')
    lost.check(0)
    assert lost.describe() == ''


@pytest.mark.parametrize('name', WRITERS)
def test_only_own_errors_leave_the_readers(tmp_path, name):
    """Every text file of every layout, cut or changed at random: a folder is read or refused."""
    write, options = WRITERS[name]
    folder = write(tmp_path / '4711', render_views(3))
    rng = np.random.default_rng(len(name))
    texts = [
        path
        for path in tmp_path.rglob('*')
        if path.suffix in ('.txt', '.log', '.json', '.traj', '.pincam')
    ]
    for path in texts[:8]:
        content = path.read_bytes()
        for kind in range(6):
            broken = bytearray(content)
            if kind == 0:
                broken = broken[: rng.integers(len(broken))]
            elif kind == 1:
                broken = bytearray(b'')
            else:
                for place in rng.integers(len(broken), size=3):
                    broken[place] = rng.choice(np.frombuffer(b'\x00\xff{[9e-.x ', np.uint8))
            path.write_bytes(broken)
            with contextlib.suppress(ValueError, OSError):
                find_layout(folder, **options, rules=LossRules(max_lost=1.0))
        path.write_bytes(content)
    assert find_layout(folder, **options) is not None


def test_paths_may_not_leave_the_folder(tmp_path):
    folder = foreign.write_nerfstudio(tmp_path / 'ns', render_views(2))
    content = json.loads((folder / 'transforms.json').read_text())
    content['frames'][0]['file_path'] = '../../etc/passwd'
    (folder / 'transforms.json').write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r'transforms.json.*not a relative path inside'):
        find_layout(folder)


def _said_by(run):
    """Lines that are logged while something runs."""
    lines, log = [], MMLogger.get_current_instance()
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    log.addHandler(handler)
    try:
        run()
    finally:
        log.removeHandler(handler)
    return lines


def test_root_of_sequences_tells_of_each(tmp_path):
    root = tmp_path / 'root'
    foreign.write_tum(root / 'TUM büro', render_views(4))
    foreign.write_redwood(root / 'b', render_views(4))
    foreign.write_slambook(root / 'no intrinsics', render_views(4))
    (root / 'photos' / 'images').mkdir(parents=True)
    Image.new('RGB', (8, 8)).save(root / 'photos' / 'images' / 'a.jpg')
    (root / 'notes').mkdir()
    sequences, not_understood = find_sequences(root)
    assert sorted(sequences) == ['TUM_b_ro', 'b', 'no_intrinsics']
    assert [path.name for path in not_understood] == ['photos']

    options = {'voxel_size': 0.2, 'progress': False}
    first = _said_by(lambda: convert_posed_rgbd(root, tmp_path / 'out', **options))
    for name, said in (
        ('TUM büro', 'converted to TUM_b_ro'),
        ('b', 'converted to b'),
        ('no intrinsics', 'not converted: '),
        ('photos', 'not understood: found there: images/'),
    ):
        assert any(f'{name}: {said}' in line for line in first), name
    second = _said_by(lambda: convert_posed_rgbd(root, tmp_path / 'out', **options))
    assert any('root/b: there already' in line for line in second)
    assert len(read_scenes(tmp_path / 'out')) == 2
    with pytest.raises(ValueError, match='no intrinsics lie there'):
        convert_posed_rgbd(root, tmp_path / 'strict', rules=LossRules(strict=True), **options)
    with pytest.raises(ValueError, match='scene_name is for one sequence, found 3'):
        convert_posed_rgbd(root, tmp_path / 'out', scene_name='x', **options)


def test_frames_of_different_cameras_and_sizes_become_one_scene(tmp_path):
    """Own K of a frame stands in the infos, images of another size are resized with their K."""
    views = render_views(6)
    folder = foreign.write_nerfstudio(tmp_path / 'ns', views)
    content = json.loads((folder / 'transforms.json').read_text())
    half = content['frames'][2]
    for key in ('file_path', 'depth_file_path'):
        path = folder / half[key]
        Image.open(path).resize((32, 24), Image.NEAREST).save(path)
    # the principal point of one frame is moved with its image
    moved = content['frames'][4]
    for key in ('file_path', 'depth_file_path'):
        image = np.asarray(Image.open(folder / moved[key]))
        Image.fromarray(np.roll(image, 3, axis=1)).save(folder / moved[key])
    moved['cx'] += 3
    (folder / 'transforms.json').write_text(json.dumps(content))

    convert_posed_rgbd(folder, tmp_path / 'out', voxel_size=0.1, up='z', progress=False)
    infos = read_infos(tmp_path / 'out' / 'oneformer3d_infos_test.json')
    own = [image.get('cam2img') for image in infos['data_list'][0]['images']]
    assert [matrix is not None for matrix in own] == [False] * 4 + [True, False]
    scene = read_scenes(tmp_path / 'out')['ns']
    camera = scene.cameras(scene.frames)
    assert camera.intrinsics.shape == (6, 3, 3)
    np.testing.assert_allclose(camera.intrinsics[4, 0, 2], K[0, 2] + 3)
    np.testing.assert_allclose(camera.intrinsics[2], K, atol=1e-5)
    points = np.fromfile(scene.points_path, np.float32).reshape(-1, 6)
    assert np.quantile(distance_to_walls(points[:, :3].astype(np.float64)), 0.9) < 0.05

    # what was converted is read back alike
    back = find_layout(tmp_path / 'out' / 'posed_images' / 'ns')
    np.testing.assert_allclose(
        [frame.K for frame in back.frames], camera.intrinsics.numpy(), atol=1e-5
    )


def test_tools_that_need_points_name_the_one_that_does_not(tmp_path):
    folder = foreign.write_colmap(tmp_path / 'room', render_views(3), depth=False)
    (folder / 'sparse' / '0' / 'points3D.txt').unlink()
    with pytest.raises(ValueError, match=r'3 posed images without depth.*fit_field'):
        read_scan(folder).require_points()
    assert len(read_scan(folder).recording.frames) == 3
    with pytest.raises(ValueError, match=r'3 posed images without depth.*fit_field'):
        convert_posed_rgbd(folder, tmp_path / 'out', progress=False)
    scene = load_field_scene(folder)
    assert not scene.has_depth
    assert scene.read(0).depth is None
    assert len(scene.frames) == 3


def test_images_turned_by_exif_are_left_out_with_the_reason(tmp_path):
    folder = tmp_path / 'scan'
    write_posed_images(folder, render_views(8))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = sorted(folder.glob('*.jpg'))[3]
    pixels = Image.open(turned).copy()
    pixels.save(turned, exif=exif)
    found = find_layout(folder)
    assert len(found.frames) == 7
    ((name, reason),) = found.left_out
    assert name == turned.stem
    assert 'EXIF' in reason

    for path in folder.glob('*.jpg'):
        Image.open(path).copy().save(path, exif=exif)
    with pytest.raises(ValueError, match=r'no usable frame: .*EXIF'):
        find_layout(folder)


def test_recordings_far_below_the_root_are_found_and_none_is_taken_for_all(tmp_path):
    """A download of several recordings, some of them deeper than others."""
    root = tmp_path / 'download'
    for place in ('near/rgbd', 'far/dense/data/rgbd'):
        foreign.write_redwood(root / place, render_views(4))
    sequences, _ = find_sequences(root)
    assert sorted(sequences) == ['far_dense_data_rgbd', 'near_rgbd']
    with pytest.raises(FileNotFoundError, match=r'holds 2 recordings, .*far/dense/data/rgbd'):
        read_scan(root)
