"""The inferencer around a stand-in whose answer is known, and around a real tiny segmentor."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config

from oneformer3d.data.scan import read_scan
from oneformer3d.inference.inferencer import OneFormer3DInferencer
from oneformer3d.inference.model_settings import model_voxel_size
from oneformer3d.registry import MODELS
from oneformer3d.structures import Segmentation
from tests.helpers.color_segmentor import CLASSES, two_block_scene, write_checkpoint, write_config
from tests.helpers.small_models import small_settings


def members_of(result: Segmentation) -> list[np.ndarray]:
    return [instance.members for instance in result.instances]


def labels_of(result: Segmentation) -> list[int]:
    return [instance.label for instance in result.instances]


def scores_of(result: Segmentation) -> list[float]:
    return [instance.score for instance in result.instances]


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Config and checkpoint of the stand-in."""
    return write_config(tmp_path), write_checkpoint(tmp_path)


def test_labels_of_a_known_scene(files) -> None:
    scene = two_block_scene()
    result = OneFormer3DInferencer(*files, device='cpu')(scene)
    labels = np.rint(scene[:, 3] / 50).astype(int)
    np.testing.assert_array_equal(result.points, scene)
    np.testing.assert_array_equal(result.semantic, labels)
    np.testing.assert_array_equal(result.panoptic_semantic, labels)
    assert result.class_names == CLASSES
    assert len(result.instances) == 6
    np.testing.assert_allclose(scores_of(result), 0.95 - 0.05 * np.arange(1, 7), rtol=1e-5)
    for number, members in enumerate(members_of(result), start=1):
        np.testing.assert_array_equal(members, np.flatnonzero(np.rint(scene[:, 4] / 10) == number))
        assert (result.instance[members] == number - 1).all()
        assert (labels[members] == labels_of(result)[number - 1]).all()
    np.testing.assert_array_equal(result.instance == -1, labels < 2)
    things = result.panoptic[labels >= 2]
    np.testing.assert_array_equal(np.unique(things), np.arange(2, 8))
    np.testing.assert_array_equal(result.panoptic[labels < 2], 1)


def test_pieces_stand_in_for_masks_or_beside_them(files) -> None:
    scene = two_block_scene()
    labels = np.rint(scene[:, 3] / 50).astype(int)

    # with such a radius all things of a class are one piece
    pieces = {'instances': 'components', 'component_radius': 1e3}
    result = OneFormer3DInferencer(*files, device='cpu', **pieces)(scene)
    whole = members_of(result)
    assert [set(rows) for rows in whole] == [set(np.flatnonzero(labels == k)) for k in (2, 3, 4)]
    np.testing.assert_array_equal(result.semantic, labels)
    assert result.info.instance_source == 'components'

    # joined: pieces are surer than masks, and cover them all; without pieces masks stay
    masks = OneFormer3DInferencer(*files, device='cpu')
    assert masks.instances == 'masks'
    for radius, expected in ((1e3, whole), (1e-6, members_of(masks(scene)))):
        settings = {'instances': 'joined', 'component_radius': radius}
        found = members_of(OneFormer3DInferencer(*files, device='cpu', **settings)(scene))
        assert {frozenset(rows) for rows in found} == {frozenset(rows) for rows in expected}


def test_where_instances_come_from_is_a_setting_of_the_config(files) -> None:
    config, checkpoint = Config.fromfile(files[0]), files[1]
    config.inference = {'instances': 'joined'}
    assert OneFormer3DInferencer(config, checkpoint).instances == 'joined'
    assert OneFormer3DInferencer(config, checkpoint, instances='masks').instances == 'masks'
    with pytest.raises(ValueError, match='instances: expected one of'):
        OneFormer3DInferencer(config, checkpoint, instances='pieces')
    config.inference = {'instance': 'joined'}
    with pytest.raises(ValueError, match=r"inference: unknown settings \['instance'\]"):
        OneFormer3DInferencer(config, checkpoint)
    with pytest.raises(ValueError, match='component_radius'):
        OneFormer3DInferencer(*files, component_radius=0.0)


def test_tiles_give_what_the_whole_gives_without_doubles_at_the_seam(files) -> None:
    scene = two_block_scene()
    whole = OneFormer3DInferencer(*files, voxel_size=0)(scene)
    tiled = OneFormer3DInferencer(*files, voxel_size=0, max_points=1500, tile_margin=0.5)(scene)
    assert whole.info.num_tiles == 1
    assert tiled.info.num_tiles > 3
    for key in ('semantic', 'panoptic_semantic', 'instance'):
        np.testing.assert_array_equal(getattr(tiled, key), getattr(whole, key))
    for a, b in zip(members_of(tiled), members_of(whole), strict=True):
        np.testing.assert_array_equal(a, b)
    # Panoptic ids may be numbered otherwise, but part the points alike.
    pairs = set(zip(tiled.panoptic.tolist(), whole.panoptic.tolist()))
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


def test_dense_cloud_is_thinned_and_every_point_gets_labels(files) -> None:
    sparse = two_block_scene()
    rng = np.random.default_rng(0)
    jitter = rng.uniform(0, 0.03, (4, *sparse.shape)) * [1, 1, 1, 0, 0, 0]
    dense = (sparse + jitter).reshape(-1, 6).astype(np.float32)
    result = OneFormer3DInferencer(*files, voxel_size=0.1)(dense)
    assert len(result.points) == 4 * len(sparse)
    assert result.info.num_points_network < 1.5 * len(sparse)
    agreement = (result.semantic == np.rint(dense[:, 3] / 50)).mean()
    assert agreement > 0.9
    assert len(result.semantic) == len(result.instance) == len(dense)


@pytest.mark.parametrize(
    ('name', 'metres'),
    [
        ('oneformer3d_scannet', 0.02),
        ('bifusion_scannet', 0.02),
        ('bifusion_scannet200', 0.02),
        ('bifusion_synthetic', 0.05),
        ('bifusion_stm_synthetic', 0.05),
        ('lifting_oneformer3d_synthetic', 0.05),
        ('mvpnet_synthetic', 0.0),
    ],
)
def test_models_say_how_dense_their_clouds_are(name, metres) -> None:
    assert model_voxel_size(Config.fromfile(f'configs/{name}.py').model) == metres


def test_score_threshold(files) -> None:
    result = OneFormer3DInferencer(*files, score_thr=0.72)(two_block_scene())
    assert len(result.instances) == 4


@pytest.mark.parametrize('up', ['x', 'y', 'z', '-x', '-y', '-z'])
def test_up_axis(files, up: str) -> None:
    points = np.random.default_rng(0).random((200, 6)).astype(np.float32) * [1, 1, 1, 0, 0, 0]
    result = OneFormer3DInferencer(*files)(points.astype(np.float32), up=up)
    axis, sign = 'xyz'.index(up[-1]), -1 if up[0] == '-' else 1
    np.testing.assert_allclose(result.upright[:, 2], sign * points[:, axis], rtol=1e-6)
    rotation = np.linalg.lstsq(points[:, :3], result.upright, rcond=None)[0]
    assert np.linalg.det(rotation) == pytest.approx(1, abs=1e-4)
    np.testing.assert_array_equal(result.points[:, :3], points[:, :3].astype(np.float32))


def test_files_and_colorless_clouds(files, tmp_path: Path) -> None:
    scene = two_block_scene()
    scene.tofile(tmp_path / 'scene.bin')
    np.save(tmp_path / 'bare.npy', scene[:, :3])
    inferencer = OneFormer3DInferencer(*files)
    from_file = inferencer(tmp_path / 'scene.bin')
    np.testing.assert_array_equal(from_file.semantic, inferencer(scene).semantic)
    bare = inferencer(tmp_path / 'bare.npy')
    assert (bare.points[:, 3:] == 127).all()


def test_model_without_superpoints(tmp_path: Path) -> None:
    config = write_config(tmp_path, use_superpoints=False)
    result = OneFormer3DInferencer(config, write_checkpoint(tmp_path))(two_block_scene())
    assert len(result.instances) == 6


def test_one_point_and_no_instances(files) -> None:
    point = np.array([[1.0, 2, 3, 50, 0, 0]], np.float32)
    result = OneFormer3DInferencer(*files)(point)
    np.testing.assert_array_equal(result.semantic, [1])
    np.testing.assert_array_equal(result.instance, [-1])
    assert result.instances == ()


def test_rgbd_folder_is_fused_and_turned_upright(files, real_frames: Path) -> None:
    """A real sequence whose first camera, looking down by some 18 degrees, is its world."""
    result = OneFormer3DInferencer(*files)(real_frames)
    up = np.array(result.up)
    # the direction, of all in steps of 2 degrees, along which heights pile up highest
    assert up @ [-0.105, -0.946, -0.307] > np.cos(np.radians(5))
    assert result.info.num_points_network < len(result.points)
    # Upright, a floor or table top is level: its heights pile up.
    heights = np.histogram(result.upright[:, 2], bins=np.arange(-3, 3, 0.04))[0]
    assert heights.max() > 4 * heights[heights > 0].mean()
    forced = OneFormer3DInferencer(*files)(real_frames, up='-y')
    np.testing.assert_array_equal(forced.up, [0, -1, 0])


def test_progress_is_told(files) -> None:
    told = []
    scene = two_block_scene()
    OneFormer3DInferencer(*files, voxel_size=0, max_points=1500, tile_margin=0.5)(
        scene, progress=lambda *step: told.append(step)
    )
    steps = list(dict.fromkeys(step for step, _, _ in told))
    assert steps == ['read', 'thin', 'superpoints', 'network', 'merge']
    network = [(done, total) for step, done, total in told if step == 'network']
    total = network[0][1]
    assert total > 3
    assert [done for done, _ in network] == [*range(total + 1), total]


def test_bad_input_is_named(files, tmp_path: Path) -> None:
    config, checkpoint = files
    with pytest.raises(FileNotFoundError, match=r'no\.pth'):
        OneFormer3DInferencer(config, tmp_path / 'no.pth')
    with pytest.raises(FileNotFoundError, match=r'no\.py'):
        OneFormer3DInferencer(tmp_path / 'no.py', checkpoint)
    inferencer = OneFormer3DInferencer(config, checkpoint)
    with pytest.raises(FileNotFoundError, match=r'no\.ply'):
        inferencer(tmp_path / 'no.ply')
    with pytest.raises(ValueError, match='up: expected'):
        inferencer(two_block_scene(), up='w')
    with pytest.raises(ValueError, match='no points'):
        inferencer(np.zeros((0, 6)))


def test_checkpoint_of_another_model(files, tmp_path: Path) -> None:
    (tmp_path / 'other').mkdir()
    config = write_config(tmp_path / 'other', num_weights=7)
    with pytest.raises(ValueError) as caught:
        OneFormer3DInferencer(config, files[1])
    assert str(files[1]) in str(caught.value)
    assert '\n' not in str(caught.value)


def test_config_without_test_settings(files, tmp_path: Path) -> None:
    config = Config({'model': {'type': 'ColorSegmentor', 'voxel_size': 1}})
    with pytest.raises(ValueError, match='test_dataloader'):
        OneFormer3DInferencer(config, files[1])


def test_class_table_of_another_size(files) -> None:
    config = Config.fromfile(files[0])
    config.test_dataloader.dataset.class_table = 'scannet'
    with pytest.raises(ValueError, match=r'5 classes.*20'):
        OneFormer3DInferencer(config, files[1])


def test_real_segmentor_agrees_with_its_own_predict(files, tmp_path: Path) -> None:
    """Untrained weights, random labels: the inferencer's are those of the model itself."""
    config = Config.fromfile(files[0])
    config.model = small_settings()
    config.model.test_cfg.inst_score_thr = 0.0
    model = MODELS.build(config.model).eval()
    torch.save({'state_dict': model.state_dict()}, tmp_path / 'real.pth')
    inferencer = OneFormer3DInferencer(
        config, tmp_path / 'real.pth', 'cpu', voxel_size=0, score_thr=0.0
    )
    scene = two_block_scene()
    result = inferencer(scene)
    superpoints = inferencer._superpoints(scene)
    normalised = scene.copy()
    normalised[:, 3:] = (scene[:, 3:] - 127.5) / 127.5
    from mmdet3d.structures import Det3DDataSample, PointData

    sample = Det3DDataSample()
    sample.gt_pts_seg = PointData(sp_pts_mask=torch.from_numpy(superpoints))
    expected = model.predict({'points': [torch.from_numpy(normalised)]}, [sample])[0].pred_pts_seg
    np.testing.assert_array_equal(result.semantic, expected.pts_semantic_mask[0])
    np.testing.assert_array_equal(result.panoptic_semantic, expected.pts_semantic_mask[1])
    masks = expected.pts_instance_mask[0].astype(bool)
    own = [k for k, mask in enumerate(masks) if (mask & ~masks[:k].any(axis=0)).any()]
    assert result.info.num_covered == len(masks) - len(own)
    np.testing.assert_allclose(scores_of(result), expected.instance_scores[own], rtol=1e-6)
    for members, mask in zip(members_of(result), masks[own], strict=True):
        np.testing.assert_array_equal(members, np.flatnonzero(mask))
    np.testing.assert_array_equal(labels_of(result), expected.instance_labels[own] + 2)


def test_a_scan_may_be_read_before_and_its_up_is_stated_later(files) -> None:
    inferencer, cloud = OneFormer3DInferencer(*files), two_block_scene()
    far = cloud + np.array([400_000, 5_800_000, 0, 0, 0, 0])
    scan = read_scan(far)
    result = inferencer(scan)
    np.testing.assert_array_equal(result.origin, scan.origin)
    assert scan.origin[0] > 390_000
    assert result.warnings == scan.warnings != ()
    assert 'read' not in result.info.seconds

    direct = inferencer(cloud, up='x')
    later = inferencer(read_scan(cloud), up='x')
    assert later.up.tolist() == direct.up.tolist() == [1, 0, 0]
    np.testing.assert_array_equal(later.semantic, direct.semantic)


def test_outliers_far_away_change_no_label(files) -> None:
    inferencer, cloud = OneFormer3DInferencer(*files), two_block_scene()
    strays = np.random.default_rng(0).uniform(40, 90, (30, 6)).astype(np.float32)
    clean, result = inferencer(cloud), inferencer(np.concatenate([cloud, strays]))
    assert (clean.info.num_isolated, result.info.num_isolated) == (0, 30)
    np.testing.assert_array_equal(result.semantic[: len(cloud)], clean.semantic)
    np.testing.assert_array_equal(result.instance[: len(cloud)], clean.instance)


def test_mirrored_views_are_averaged(tmp_path) -> None:
    """With views that are all the same: what the network alone says."""
    config = Config.fromfile(write_config(tmp_path))
    config.model = small_settings()
    # an untrained network finds something everywhere
    config.model.test_cfg.update(sp_score_thr=0.0, obj_normalization=False)
    steps = config.test_dataloader.dataset.pipeline
    flips = [{'type': 'RandomFlipBEV', 'prob_x': 0, 'prob_y': 0}] * 2
    config.tta_pipeline = [*steps[:-1], {'type': 'TestTimeAug', 'transforms': [flips, steps[-1:]]}]
    config.tta_model = {'type': 'OneFormer3DTTA'}
    state = MODELS.build(config.model).state_dict()
    torch.save({'state_dict': state}, tmp_path / 'real.pth')

    settings = {'voxel_size': 0, 'score_thr': 0.0}
    alone, same = (
        OneFormer3DInferencer(config, tmp_path / 'real.pth', 'cpu', tta=tta, **settings)
        for tta in (False, True)
    )
    scene = two_block_scene()
    expected, result = alone(scene), same(scene)
    np.testing.assert_array_equal(result.semantic, expected.semantic)
    assert scores_of(expected)
    np.testing.assert_allclose(scores_of(result), scores_of(expected), rtol=1e-4)

    # a mirrored view is another one, and another result than before
    flips[1] = {'type': 'RandomFlipBEV', 'prob_x': 1, 'prob_y': 0}
    config.tta_pipeline[-1].transforms[0] = flips
    other = OneFormer3DInferencer(config, tmp_path / 'real.pth', 'cpu', tta=True, **settings)
    assert scores_of(other(scene)) != pytest.approx(scores_of(expected), rel=1e-4)
    cloud = tmp_path / 'cloud.npy'
    np.save(cloud, scene)
    assert other.key(cloud) != alone.key(cloud)


def test_averaging_needs_settings_of_the_config(files) -> None:
    with pytest.raises(ValueError, match='has no tta_model'):
        OneFormer3DInferencer(*files, tta=True)
