"""A segmentation writes itself; independent readers find in its files what it says."""

import json
from dataclasses import replace
from pathlib import Path

import laspy
import numpy as np
import plyfile
import pytest
import trimesh
from PIL import Image
from pycocotools import mask as coco

from oneformer3d.metrics.instance import instance_scores, match_instances
from oneformer3d.structures import Segmentation, SegmentationInfo
from oneformer3d.structures.instances import decode_runs, encode_runs, make_instance
from oneformer3d.structures.segmentation import EXTRA_FILES, FILES, ModelInfo

SIZE = (48, 64)
IDS = (1, 2, 7, 5)


def small_segmentation() -> Segmentation:
    """Nine points of a scan whose y is up, two overlapping instances."""
    points = np.random.default_rng(0).random((9, 6)).astype(np.float32) * 5
    upright_from_scan = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]], np.float32)
    upright = points[:, :3] @ upright_from_scan.T
    return Segmentation(
        points=points,
        semantic=np.array([2, 2, 2, 3, 0, 0, 1, 1, 1]),
        panoptic=np.array([4, 4, 4, 5, 0, 0, 1, 1, 0]),
        panoptic_semantic=np.array([2, 2, 2, 3, 0, 0, 1, 1, 0]),
        instances=(
            make_instance('table', 2, 0.9, np.array([0, 1, 2]), upright),
            make_instance('chair', 3, 0.4, np.array([2, 3]), upright),
        ),
        class_names=('wall', 'floor', 'table', 'chair'),
        class_ids=IDS,
        palette=np.arange(12, dtype=np.uint8).reshape(4, 3),
        upright_from_scan=upright_from_scan,
        info=SegmentationInfo('room.ply', 1, 9, seconds={'read': 0.1}, model=ModelInfo('c.py')),
        views=('00000',),
        warnings=('2 points were not finite',),
    )


@pytest.fixture(scope='module')
def saved(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('results') / 'room'
    small_segmentation().save(folder, extras=tuple(EXTRA_FILES), size=SIZE)
    return folder


def test_the_files_are_there(saved: Path) -> None:
    names = sorted([*FILES, *EXTRA_FILES.values()])
    assert sorted(p.name for p in saved.iterdir()) == names
    assert sorted(json.loads((saved / 'summary.json').read_text())['files']) == names


def test_clouds(saved: Path) -> None:
    result = small_segmentation()
    vertices = plyfile.PlyData.read(str(saved / 'segmentation.ply'))['vertex']
    colors = np.stack([vertices[name] for name in ('red', 'green', 'blue')], axis=1)
    np.testing.assert_array_equal(colors, result.palette[result.semantic])
    np.testing.assert_array_equal(vertices['instance'], [0, 0, 0, 1, -1, -1, -1, -1, -1])
    for name in ('semantic', 'panoptic'):
        np.testing.assert_array_equal(vertices[name], getattr(result, name))
    cloud = trimesh.load(saved / 'instances.ply')
    np.testing.assert_array_equal(cloud.vertices, result.points[:, :3])


def test_arrays(saved: Path) -> None:
    result = small_segmentation()
    arrays = np.load(saved / 'predictions.npz', allow_pickle=False)
    masks = np.unpackbits(arrays['instance_masks'], axis=1, count=9).astype(bool)
    np.testing.assert_array_equal(masks, [instance.mask for instance in result.instances])
    for key in ('points', 'semantic', 'panoptic_semantic', 'panoptic', 'instance'):
        np.testing.assert_array_equal(arrays[key], getattr(result, key))


def test_pictures(saved: Path) -> None:
    for name in ('segmentation.png', 'top.png'):
        assert Image.open(saved / name).size[0] == 4 * SIZE[1]


def test_summary(saved: Path) -> None:
    result = small_segmentation()
    summary = json.loads((saved / 'summary.json').read_text())
    assert summary['input'] == 'room.ply'
    assert summary['points_per_class'] == {'table': 3, 'floor': 3, 'wall': 2, 'chair': 1}
    assert summary['num_instances'] == 2
    first = summary['instances'][0]
    assert (first['class'], first['num_points'], first['score']) == ('table', 3, 0.9)
    # y of the scan is up
    height = np.ptp(result.points[:3, 1])
    assert first['box']['size'][2] == pytest.approx(height, abs=1e-3)
    assert summary['seconds'] == {'read': 0.1}
    assert summary['warnings'] == ['2 points were not finite']


def test_it_loads_as_it_was(saved: Path) -> None:
    result, loaded = small_segmentation(), Segmentation.load(saved)
    for key in ('points', 'semantic', 'panoptic', 'panoptic_semantic', 'upright_from_scan'):
        np.testing.assert_array_equal(getattr(loaded, key), getattr(result, key))
    assert loaded.info == result.info
    assert (loaded.views, loaded.warnings) == (result.views, result.warnings)
    assert (loaded.class_names, loaded.class_ids) == (result.class_names, result.class_ids)
    for mine, theirs in zip(loaded.instances, result.instances, strict=True):
        assert (mine.name, mine.label, mine.box) == (theirs.name, theirs.label, theirs.box)
        np.testing.assert_array_equal(mine.mask, theirs.mask)


def test_json_is_read_by_coco(saved: Path) -> None:
    result = small_segmentation()
    content = json.loads((saved / 'instances.json').read_text())
    assert [row['id'] for row in content['categories']] == list(IDS)
    for row, instance in zip(content['annotations'], result.instances, strict=True):
        runs = coco.frPyObjects(row['segmentation'], *row['segmentation']['size'])
        np.testing.assert_array_equal(coco.decode(runs)[:, 0].astype(bool), instance.mask)
        assert row['num_points'] == coco.area(runs) == len(instance.members)
        assert row['category_id'] == IDS[instance.label]
        corners = np.array(row['corners'])
        inside = result.points[instance.members, :3]
        assert (inside >= corners.min(0) - 2e-3).all()
        assert (inside <= corners.max(0) + 2e-3).all()


def test_glb_has_a_node_per_instance_and_every_point_once(saved: Path) -> None:
    result = small_segmentation()
    scene = trimesh.load(saved / 'scene.glb')
    assert sorted(scene.geometry) == ['0 table', '1 chair', 'scan']
    assert sum(len(cloud.vertices) for cloud in scene.geometry.values()) == 9
    table = scene.geometry['0 table'].vertices
    # y of the scan is up, and so is glTF's
    np.testing.assert_allclose(table, result.points[:3, :3], atol=1e-6)


def test_las(saved: Path) -> None:
    result = small_segmentation()
    las = laspy.read(saved / 'scan.las')
    np.testing.assert_allclose(las.xyz, result.points[:, :3], atol=1e-4)
    np.testing.assert_array_equal(las.classification, result.semantic)
    np.testing.assert_array_equal(las['instance'], result.instance)
    np.testing.assert_array_equal(np.asarray(las.red) // 257, result.rgb[:, 0])


def test_a_cloud_per_instance_and_none_of_before(saved: Path) -> None:
    result = small_segmentation()
    clouds = sorted((saved / 'instances').iterdir())
    assert [path.name for path in clouds] == ['000_table.ply', '001_chair.ply']
    for path, instance in zip(clouds, result.instances):
        points = trimesh.load(path).vertices
        np.testing.assert_array_equal(points, result.points[instance.members, :3])
    replace(result, instances=result.instances[:1]).save(saved, extras=('instances',), size=SIZE)
    assert [path.name for path in (saved / 'instances').iterdir()] == ['000_table.ply']


def test_the_benchmarks_files_score_as_the_masks_do(tmp_path: Path) -> None:
    """Read as the benchmark reads them, against a truth that one instance misses by a point."""
    result = small_segmentation()
    result.to_scannet(tmp_path, 'room')
    ids = np.loadtxt(tmp_path / 'semantic/room.txt', dtype=int)
    np.testing.assert_array_equal(ids, np.array(IDS)[result.semantic])

    masks, labels, scores = [], [], []
    for line in (tmp_path / 'instance/room.txt').read_text().splitlines():
        name, label, score = line.split()
        masks.append(np.loadtxt(tmp_path / 'instance' / name, dtype=int).astype(bool))
        labels.append(IDS.index(int(label)) - 2)
        scores.append(float(score))

    # IoU of the table is 1, of the chair 1/2, which is above 0.25 and not above 0.5
    truth = np.array([0, 0, 0, 1, -1, -1, -1, -1, -1])
    matches = match_instances(
        np.array(masks), np.array(labels), np.array(scores), truth, np.array([0, 1]), 1
    )
    found = instance_scores([matches], 2, 1)
    np.testing.assert_array_equal(found.ap50, [1, 0])
    np.testing.assert_array_equal(found.ap25, [1, 1])


def test_runs_go_back_and_forth() -> None:
    rng = np.random.default_rng(0)
    for length in (0, 1, 5, 100):
        mask = rng.random(length) < 0.5
        np.testing.assert_array_equal(decode_runs(encode_runs(mask)), mask)
    assert encode_runs(np.ones(3, bool)) == [0, 3]
    assert encode_runs(np.zeros(3, bool)) == [3]


def test_no_instances(tmp_path: Path) -> None:
    result = replace(small_segmentation(), instances=())
    result.save(tmp_path, extras=tuple(EXTRA_FILES), size=SIZE)
    assert np.load(tmp_path / 'predictions.npz')['instance_masks'].shape == (0, 2)
    assert Segmentation.load(tmp_path).instances == ()
    assert json.loads((tmp_path / 'summary.json').read_text())['num_instances'] == 0


def test_failure_leaves_nothing_half_written_and_no_summary(tmp_path: Path, monkeypatch) -> None:
    small_segmentation().save(tmp_path, size=SIZE)

    def fail(*args, **kwargs):
        raise OSError('no space left on device')

    monkeypatch.setattr('numpy.savez_compressed', fail)
    with pytest.raises(OSError, match='no space'):
        small_segmentation().save(tmp_path, size=SIZE)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(set(FILES) - {'summary.json'})
    np.load(tmp_path / 'predictions.npz')['points']
    with pytest.raises(FileNotFoundError, match=r'summary\.json'):
        Segmentation.load(tmp_path)


def test_bad_requests(tmp_path: Path) -> None:
    result = small_segmentation()
    with pytest.raises(ValueError, match='obj'):
        result.save(tmp_path / 'out', extras=('obj',))
    assert not (tmp_path / 'out').exists()
    with pytest.raises(ValueError, match='color_by'):
        result.to_ply(tmp_path / 'a.ply', color_by='height')
    with pytest.raises(ValueError, match='0 to 255'):
        replace(result, semantic=result.semantic + 300).to_las(tmp_path / 'a.las')
    assert list(tmp_path.iterdir()) == []


def test_the_origin_comes_back_and_las_has_the_scans_own_coordinates(tmp_path: Path) -> None:
    origin = np.array([389012.0, 5819321.0, 34.0])
    result = replace(small_segmentation(), origin=origin)
    result.save(tmp_path, extras=('las',), size=SIZE)

    np.testing.assert_array_equal(Segmentation.load(tmp_path).origin, origin)
    np.testing.assert_allclose(
        laspy.read(tmp_path / 'scan.las').xyz, result.points[:, :3] + origin, atol=2e-4
    )
    for name in ('summary.json', 'instances.json'):
        assert json.loads((tmp_path / name).read_text())['origin'] == origin.tolist()
