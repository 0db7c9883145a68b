from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from oneformer3d.data.class_tables import get_class_table
from oneformer3d.fields.scene.arrays import scene_from_arrays
from oneformer3d.fields.scene.batches import FlatMaps, RayPool
from oneformer3d.fields.scene.extent import Observations, small_depth
from oneformer3d.fields.scene.folder import depth_at_color, load_field_scene
from oneformer3d.fields.scene.label_maps import point_labels_reader
from oneformer3d.fields.scene.labelled_points import IGNORE, LabelledPoints
from oneformer3d.lifting import Camera, project, sample_map
from oneformer3d.store import FeatureStoreWriter, StoreStamp
from tests.helpers.small_scenes import view_batch

K = torch.tensor([[40.0, 0, 23.5], [0, 40.0, 15.5], [0, 0, 1]])
SIZE = (32, 48)
STAMP = StoreStamp(
    encoder='test', weights_digest='d1', layer='l', mode='clip', attn_mode='none',
    input_size=(8, 8), dtype='float32', preprocessing='none', channels=3, grid=None,
)  # fmt: skip


@pytest.fixture
def room(tiny_rooms):
    """Folder of one small synthetic room."""
    return sorted((tiny_rooms / 'posed_images').iterdir())[0]


def arrays(num_views=3):
    generator = torch.Generator().manual_seed(0)
    images = [torch.rand(*SIZE, 3, generator=generator) for _ in range(num_views)]
    poses = [torch.eye(4) for _ in range(num_views)]
    return dict(images=images, intrinsics=[K] * num_views, world_from_cam=poses)


def write_sequence(folder, num_frames=2, size=SIZE, depth=1500):
    """Frames in the layout of this package's posed images."""
    folder.mkdir(parents=True, exist_ok=True)
    np.savetxt(folder / 'intrinsic.txt', K.numpy())
    for index in range(num_frames):
        color = np.full((*size, 3), 40 * index, dtype=np.uint8)
        Image.fromarray(color).save(folder / f'{index:05d}.jpg')
        Image.fromarray(np.full(size, depth, dtype=np.uint16)).save(folder / f'{index:05d}.png')
        np.savetxt(folder / f'{index:05d}.txt', np.eye(4))
    return folder


def test_room_gives_what_is_in_its_files(room, tiny_rooms):
    scene = load_field_scene(room)
    table = get_class_table('synthetic')
    content = scene.read(2)
    raw = np.asarray(Image.open(room / '00002.semantic.png'))
    expected = np.where(raw == 0, IGNORE, raw.astype(int) - 1)  # raw ids count from 1
    assert scene.class_names == table.classes
    assert np.array_equal(content.semantics.numpy(), expected)
    depth = np.asarray(Image.open(room / '00002.png')) / 1000
    assert np.allclose(content.depth.numpy(), depth, atol=1e-6)
    assert content.rgb.shape == (*raw.shape, 3)
    things = np.isin(expected, table.instance_classes)
    assert (content.instances.numpy()[~things] == -1).all()
    assert (content.instances.numpy()[things] > 0).any()
    points = np.fromfile(tiny_rooms / 'points' / f'{room.name}.bin', dtype=np.float32)
    assert np.array_equal(scene.points.xyz.numpy(), points.reshape(-1, 6)[:, :3])
    assert load_field_scene(tiny_rooms / room.name).frames == scene.frames


def test_smaller_images_keep_the_geometry(room):
    full, small = load_field_scene(room), load_field_scene(room, max_side=48)
    assert small.camera.image_size == (36, 48)
    big, little = full.read(0), small.read(0)
    points = full.camera[0].unproject(big.depth)[big.depth > 0]
    uv, z = small.camera[0].project(points)
    cell = (uv + 0.5).floor().long()
    inside = (cell >= 0).all(-1) & (cell[:, 0] < 48) & (cell[:, 1] < 36)
    found = little.depth[cell[inside, 1], cell[inside, 0]]
    assert ((found - z[inside]).abs() < 0.1).float().mean() > 0.95


def test_depth_of_another_camera_lands_on_the_colour_ray():
    """A plane's depth through two cameras at one position: the same z everywhere."""
    depth_k = torch.tensor([[30.0, 0, 20.0], [0, 31.0, 14.0], [0, 0, 1]])
    v, u = torch.meshgrid(torch.arange(30.0), torch.arange(40.0), indexing='ij')
    rays = torch.stack([(u - 20) / 30, (v - 14) / 31, torch.ones_like(u)], dim=-1)
    depth = 2 / (rays @ torch.tensor([0.1, 0.2, 1.0]))
    found = depth_at_color(depth, depth_k, Camera(K, torch.eye(4), SIZE))
    v, u = torch.meshgrid(torch.arange(32.0), torch.arange(48.0), indexing='ij')
    rays = torch.stack([(u - 23.5) / 40, (v - 15.5) / 40, torch.ones_like(u)], dim=-1)
    expected = 2 / (rays @ torch.tensor([0.1, 0.2, 1.0]))
    assert (found > 0).float().mean() > 0.5
    assert (found - expected)[found > 0].abs().max() < 0.02  # half a pixel of this slope
    assert (found[:, 0] == 0).all() == bool(((0 - 23.5) / 40 * 30 + 20) < -0.5)


def test_labels_of_points_and_of_a_folder(room, tmp_path):
    scene = load_field_scene(room)
    points = scene.points
    np.savez(
        tmp_path / 'labels.npz',
        points=points.xyz.numpy(),
        semantic=points.semantic.numpy(),
        class_names=np.array(scene.class_names),
    )
    looked_up = load_field_scene(room, labels=tmp_path / 'labels.npz')
    assert looked_up.class_names == scene.class_names
    given, found = scene.read(1).semantics, looked_up.read(1).semantics
    both = (given != IGNORE) & (found != IGNORE)
    assert both.float().mean() > 0.7
    assert (given == found)[both].float().mean() > 0.9

    folder = tmp_path / 'maps'
    folder.mkdir()
    for name in scene.frames:
        Image.fromarray(np.full((10, 10), 3, dtype=np.uint8)).save(folder / f'{name}.png')
    assert load_field_scene(room, labels=folder).class_names == scene.class_names
    untabled = write_sequence(tmp_path / 'plain', num_frames=5)
    plain = load_field_scene(untabled, labels=folder)
    assert plain.class_names == ('0', '1', '2', '3')
    assert (plain.read(0).semantics == 3).all()
    assert load_field_scene(room, labels='none').class_names == ()


def test_without_depth_no_pixel_takes_the_label_of_a_point():
    points = LabelledPoints(torch.zeros(1, 3), torch.tensor([2]), torch.tensor([7]))
    camera = Camera(torch.eye(3), torch.eye(4), (2, 3))
    semantics, instances = point_labels_reader(points)('0', camera, None)
    assert (semantics == IGNORE).all()
    assert (instances == -1).all()
    assert semantics.shape == instances.shape == (2, 3)


def test_features_come_from_the_stores_by_type(tmp_path):
    folder = write_sequence(tmp_path / 'scene')
    maps = np.random.default_rng(0).random((2, 3, 4, 5), dtype=np.float32)
    with FeatureStoreWriter(tmp_path / 'store', STAMP) as writer:
        for index in range(2):
            writer.put('scene', f'{index:05d}', {'feat': maps[index]})
    other = replace(STAMP, encoder='dino', channels=2)
    with FeatureStoreWriter(tmp_path / 'other', other) as writer:
        for index in range(2):
            writer.put('scene', f'{index:05d}', {'feat': maps[index, :2]})
    stores = {'CLIP': tmp_path / 'store', 'DINO': tmp_path / 'other'}
    scene = load_field_scene(folder, stores=stores)
    features = scene.read(1).features
    assert np.array_equal(features['CLIP'].numpy(), maps[1].transpose(1, 2, 0))
    assert np.array_equal(features['DINO'].numpy(), maps[1, :2].transpose(1, 2, 0))
    assert scene.stamps == {'CLIP': STAMP, 'DINO': other}
    write_sequence(folder, num_frames=3)
    with pytest.raises(ValueError, match='no features of 1 of 3 frames'):
        load_field_scene(folder, stores=stores)


def test_batches_hold_what_their_pixels_show(room):
    scene = load_field_scene(room)
    batch = RayPool(scene, [0, 3], seed=4).batch(7, 200)
    assert set(batch.view.tolist()) == {0, 3}
    contents = {view: scene.read(view) for view in (0, 3)}
    for ray in range(0, 200, 17):
        content, (u, v) = contents[int(batch.view[ray])], batch.uv[ray].long().tolist()
        assert torch.allclose(batch.targets['rgb'][ray] * 255, content.rgb[v, u].float())
        assert batch.targets['semantics'][ray] == content.semantics[v, u]
        distance = batch.targets['depth'][ray] * batch.rays.z_scale[ray]
        point = batch.rays.origins[ray] + batch.rays.directions[ray] * distance
        camera = scene.camera[int(batch.view[ray])]
        uv, z = project(point[None], camera.intrinsics, camera.world_from_cam)
        if content.depth[v, u] > 0:
            assert torch.allclose(uv[0], batch.uv[ray], atol=1e-2)
            assert torch.allclose(z[0], content.depth[v, u], atol=1e-4)
    one = RayPool(scene, [0, 3], seed=4).batch(7, 50, single_view=True)
    assert len(one.view.unique()) == 1


def test_batches_repeat_by_seed_and_step_however_they_are_reached(room):
    scene = load_field_scene(room)
    small = dict(seed=1, byte_budget=2 * 72 * 96 * 12)  # two of four views at a time
    pool = RayPool(scene, [0, 1, 2, 3], **small)
    assert pool.views_in_memory == 2
    batches = [pool.batch(step, 64) for step in (0, 49, 50, 99, 100)]
    again = RayPool(scene, [0, 1, 2, 3], **small).batch(50, 64)
    assert torch.equal(batches[2].uv, again.uv)
    assert torch.equal(batches[2].view, again.view)
    assert set(batches[0].view.tolist()) | set(batches[2].view.tolist()) == {0, 1, 2, 3}
    assert not torch.equal(batches[0].uv, batches[1].uv)


def test_features_can_be_left_unread():
    feature_maps = [torch.rand(2, 3, 4) for _ in range(3)]
    pool = RayPool(scene_from_arrays(**arrays(), features=feature_maps), [0, 1, 2], seed=1)
    whole, bare = pool.batch(3, 20), pool.batch(3, 20, with_features=False)
    assert set(whole.targets) - set(bare.targets) == {'features_CLIP'}
    assert torch.equal(whole.uv, bare.uv)
    some = whole[torch.tensor([4, 7])]
    assert len(some) == 2
    assert torch.equal(some.targets['features_CLIP'], whole.targets['features_CLIP'][[4, 7]])


def test_maps_of_any_size_are_read_as_lifting_reads_them():
    generator = torch.Generator().manual_seed(0)
    maps = [torch.rand(4, 6, 5, generator=generator), torch.rand(7, 3, 5, generator=generator)]
    uv = torch.rand(2, 40, 2, generator=generator) * torch.tensor([48.0, 32.0]) - 0.5
    for row, feature_map in enumerate(maps):
        expected = sample_map(feature_map.movedim(-1, 0)[None], uv[row : row + 1], SIZE)[0]
        index = torch.full((40,), row)
        found = FlatMaps(maps).sample(index, uv[row], torch.tensor(SIZE).expand(40, 2))
        assert torch.allclose(found, expected, atol=1e-5)


def test_arrays_of_mixed_sizes_are_a_scene():
    given = arrays(2)
    given['images'][1] = torch.rand(16, 24, 3)
    given['intrinsics'][1] = K / torch.tensor([[2.0], [2.0], [1.0]])
    scene = scene_from_arrays(**given, semantics=[torch.zeros(SIZE), torch.ones(16, 24)])
    assert scene.class_names == ('0', '1')
    pool = RayPool(scene, [0, 1])
    batch = pool.batch(0, 500)
    second = batch.view == 1
    assert 0 < second.sum() < 200  # a quarter of the first one's pixels
    assert batch.uv[second].max() < 24
    assert (batch.targets['semantics'] == batch.view).all()
    assert len(view_batch(scene, 1).uv) == 16 * 24


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(images=[]), 'at least one'),
        (dict(intrinsics=[K]), 'intrinsics: expected one per image, 3, got 1'),
        (dict(world_from_cam=[torch.eye(4), torch.eye(4), torch.zeros(4, 4)]), 'view 2: its pose'),
        (dict(depth=[torch.ones(3, 3)] * 3), r'view 0: depth: expected .* got \(3, 3\)'),
        (dict(semantics=[torch.full(SIZE, 9)] * 3, class_names=('a', 'b')), 'class 9 is out of'),
        (dict(semantics=[torch.full(SIZE, -2)] * 3), 'within'),
        (dict(images=[torch.full((*SIZE, 3), torch.nan)] * 3), '0–1'),
    ],
)
def test_bad_arrays_are_refused_in_one_line(change, message):
    with pytest.raises(ValueError, match=message):
        scene_from_arrays(**{**arrays(), **change})


def test_bad_folders_are_refused_in_one_line(tmp_path, room):
    with pytest.raises(FileNotFoundError, match='no such folder'):
        load_field_scene(tmp_path / 'absent')
    folder = write_sequence(tmp_path / 'mixed')
    Image.new('RGB', (20, 10)).save(folder / '00001.jpg')
    with pytest.raises(ValueError, match=r'1 of 2 frames are unusable.*10×20 pixels'):
        load_field_scene(folder)
    folder = write_sequence(tmp_path / 'poseless')
    for path in folder.glob('0*.txt'):
        np.savetxt(path, np.full((4, 4), np.inf))
    with pytest.raises(ValueError, match='no usable frame'):
        load_field_scene(folder)
    with pytest.raises(FileNotFoundError, match='no such file or folder of labels'):
        load_field_scene(room, labels=tmp_path / 'absent.npz')
    (tmp_path / 'maps').mkdir()
    with pytest.raises(FileNotFoundError, match='no label image 00000'):
        load_field_scene(room, labels=tmp_path / 'maps')


def test_views_are_held_out_evenly():
    scene = scene_from_arrays(**arrays(10))
    assert scene.split(4) == ([0, 1, 3, 4, 5, 7, 8, 9], [2, 6])
    assert scene.split(0)[1] == []
    assert scene_from_arrays(**arrays(1)).split(4) == ([0], [])
    with pytest.raises(ValueError, match='holdout_every'):
        scene.split(1)


def test_observed_is_in_view_and_not_behind_the_surface():
    """One camera at the origin before a wall at 2 m, whose right half is missing."""
    depth = torch.full(SIZE, 2.0)
    depth[:, 24:] = 0
    camera = Camera(K[None], torch.eye(4)[None], SIZE)
    observations = Observations(camera.resize((8, 12)), small_depth(depth, (8, 12))[None])
    points = torch.tensor(
        [
            [-0.2, 0.0, 1.0], [-0.2, 0.0, 2.0], [-0.2, 0.0, 2.3], [0.2, 0.0, 1.0],
            [-0.2, 0.0, -1.0], [-5.0, 0.0, 1.0], [torch.nan, 0.0, 1.0],
        ]
    )  # fmt: skip
    expected = [True, True, False, False, False, False, False]
    assert observations.observed(points).tolist() == expected
    many = points.repeat(100, 1)
    assert observations.observed(many, byte_budget=500).tolist() == expected * 100
    again = Observations.from_state(observations.state())
    assert again.observed(points).tolist() == expected
