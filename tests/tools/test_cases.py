"""Files, labels and configs that people reported: each has its right value, or is refused rightly.

The inputs lie in a folder beside the repository. Recordings of posed frames among them are tested
in ``data/layouts/test_given_recordings.py``.
"""

import logging
import sys
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.logging import MMLogger

from oneformer3d.data.convert.s3dis import convert_s3dis
from oneformer3d.data.infos import read_infos
from oneformer3d.data.samples.dataset import IndoorSegDataset
from oneformer3d.data.scan import read_scan
from oneformer3d.engine.class_sizes import check_class_sizes
from oneformer3d.engine.configs import load_config
from oneformer3d.registry import MODELS
from tests.conftest import REPOSITORY
from tests.helpers.load_tool import load_tool

CASES = REPOSITORY.parent / 'shared' / 'cases'
RECORDINGS = {'13', '15', '16', '17', '20', '21', '23'}  # of the other file
ROOM = [4.0, 3.0, 2.5]  # metres
SMALL_MODEL = (
    'model.encoder.num_channels=8',
    'model.encoder.backbone.num_planes=[8,16]',
    'model.decoder.in_channels=8',
    'model.decoder.d_model=16',
    'model.decoder.num_heads=2',
    'model.decoder.hidden_dim=16',
    'model.decoder.num_layers=1',
)

pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason='the cases are not here')


def test_every_case_is_tested():
    here = Path(__file__).read_text(encoding='utf-8')
    for folder in CASES.iterdir():
        assert folder.name in RECORDINGS or f'# {folder.name}: ' in here, folder.name


# 01: a room in millimetres
@pytest.mark.parametrize(('unit', 'num_warnings'), [(None, 1), ('mm', 0)])
def test_millimetres(unit, num_warnings):
    (path,) = (CASES / '01').glob('*.ply')
    scan = read_scan(path, unit=unit)
    np.testing.assert_allclose(np.ptp(scan.points[:, :3], axis=0), ROOM, atol=0.1)
    assert len(scan.warnings) == num_warnings
    assert all('taken as mm' in warning for warning in scan.warnings)


# 02: coordinates of UTM in double precision
def test_utm():
    scan = read_scan(CASES / '02' / 'room_utm.ply')
    inside = scan.points[:, :3] + scan.origin
    np.testing.assert_allclose(np.ptp(inside, axis=0), ROOM, atol=0.1)
    np.testing.assert_allclose(inside.min(0)[:2], [389012.25, 5819321.5], atol=0.1)
    assert np.abs(scan.points[:, :3]).max() < 10
    assert any('subtracted as the origin' in warning for warning in scan.warnings)


# 04: PCD with a field for each colour
@pytest.mark.parametrize('name', ['pdal', 'rgb_u1'])
def test_pcd_of_pdal(name):
    scan = read_scan(CASES / '04' / f'{name}.pcd')
    np.testing.assert_allclose(scan.points[:, 3:].mean(0), [177.9, 154.9, 140.2], atol=0.06)
    assert scan.warnings == ()


# 07: PLY headers in any encoding
@pytest.mark.parametrize('name', ['latin1', 'utf8', 'crlf', 'crlf_ascii', 'bom_ascii'])
def test_ply_headers(name):
    scan = read_scan(CASES / '07' / f'{name}.ply')
    assert len(scan.points) == (500 if 'ascii' in name else 12643)
    assert scan.warnings == ()


# 10: a room as text
@pytest.mark.parametrize('suffix', ['txt', 'xyz', 'pts'])
def test_text(suffix):
    scan = read_scan(CASES / '10' / f'room.{suffix}')
    np.testing.assert_allclose(np.ptp(scan.points[:, :3], axis=0), ROOM, atol=0.1)
    if suffix == 'xyz':
        (warning,) = scan.warnings
        assert 'no colours' in warning
    else:
        np.testing.assert_allclose(scan.points[:, 3:].mean(0), [177.9, 154.9, 140.2], atol=0.5)
        assert scan.warnings == ()


# 12: rows of x y z intensity
def test_kitti():
    path = CASES / '12' / 'kitti4.bin'
    with pytest.raises(ValueError, match=r'kitti4.bin: .*--columns x y z intensity'):
        read_scan(path)
    scan = read_scan(path, columns=('x', 'y', 'z', 'intensity'))
    assert len(scan.points) == 12642
    np.testing.assert_allclose(np.ptp(scan.points[:, :3], axis=0), ROOM, atol=0.1)


# 24: S3DIS' damaged digit is 0
def test_s3dis_with_a_damaged_digit(tmp_path, caplog):
    said = _said_by(lambda: convert_s3dis(CASES / '24' / 'root', tmp_path, progress=False))
    assert any('damaged character and is read as' in line and '103.00000' in line for line in said)
    for room in ('hallway_6', 'office_19'):
        points = np.fromfile(tmp_path / 'points' / f'Area_5_{room}.bin', '<f4').reshape(-1, 6)
        lines = sum(
            len(path.read_bytes().splitlines())
            for path in (CASES / '24/root/Area_5' / room / 'Annotations').iterdir()
        )
        assert len(points) == lines, 'no line is lost'
        assert points[:, 3:].max() <= 255


# 25: rooms without annotations are named and counted
def test_s3dis_rooms_are_not_lost_in_silence(tmp_path):
    said = _said_by(lambda: convert_s3dis(CASES / '25' / 'root', tmp_path, progress=False))
    scenes = read_infos(tmp_path / 'oneformer3d_infos_Area_1.json')['data_list']
    converted = {scene['scene_id'] for scene in scenes}
    for room in ('office_1', 'office_2', 'office_3'):
        told = any(room in line and 'left out' in line for line in said)
        assert f'Area_1_{room}' in converted or told, room
    assert {'Area_1_office_1', 'Area_1_office_3'} <= converted


# 26: a model of another size than the class table
def test_classes_of_table_and_model(tmp_path, monkeypatch):
    config = _config('26', tmp_path)
    monkeypatch.setattr(sys, 'argv', ['train.py', str(config), '--work-dir', str(tmp_path / 'w')])
    with pytest.raises(ValueError, match=r'classes.json.* has 4 semantic classes.* = 16'):
        load_tool('train').main()
    assert not list((tmp_path / 'w').rglob('*.pth'))


# 27: all classes are things
# 28: one thing, one stuff class
@pytest.mark.parametrize('case', ['27', '28'])
def test_few_classes_build(case, tmp_path):
    cfg = load_config(_config(case, tmp_path))
    check_class_sizes(cfg)
    assert MODELS.build(cfg.model) is not None


@pytest.mark.slow
@pytest.mark.parametrize('case', ['27', '28'])
def test_few_classes_train_and_test(case, tmp_path, run_tool):
    config, work_dir = _config(case, tmp_path), tmp_path / 'work'
    run_tool(
        *('tools/train.py', config, '--work-dir', work_dir, '--cfg-options', *SMALL_MODEL),
        'train_cfg.max_epochs=1',
    )
    checkpoint = next(work_dir.glob('epoch_1.pth'))
    done = run_tool(
        *('tools/test.py', config, checkpoint, '--work-dir', work_dir),
        *('--cfg-options', *SMALL_MODEL),
    )
    assert 'PQ' in done.stdout + done.stderr


# 29: instance ids that are unique per class only
def test_instances_unique_per_class():
    dataset = IndoorSegDataset(
        data_root=str(CASES / '29' / 'data'),
        ann_file='oneformer3d_infos_val.json',
        class_table='synthetic',
        pipeline=load_config(
            REPOSITORY / 'configs/oneformer3d_synthetic.py'
        ).val_dataloader.dataset.pipeline,
        test_mode=True,
    )
    said = _said_by(lambda: dataset[0])
    truth = dataset[0]['data_samples'].eval_ann_info
    instance, semantic = truth['pts_instance_mask'], truth['pts_semantic_mask']
    assert any('were split' in line for line in said)
    for index in np.unique(instance[instance >= 0]):
        assert len(np.unique(semantic[instance == index])) == 1
    assert len(np.unique(instance[instance >= 0])) == 20


# 34: a config outside of the package inherits from it
def test_a_config_of_another_project(tmp_path):
    path = tmp_path / 'own.py'
    path.write_text((CASES / '34' / 'pkg.py').read_text().replace('CASES', str(CASES)))
    cfg = Config.fromfile(path)
    assert cfg.model.type == 'OneFormer3D'
    assert cfg.model.decoder.num_instance_classes == 1
    assert load_config(path).model.decoder == cfg.model.decoder


# 37: objects of fewer points than count
@pytest.mark.slow
def test_small_objects_are_why_there_is_no_ap(tmp_path, run_tool):
    root = tmp_path / 'data'
    _write_small_objects(root)
    config, work_dir = _config('28', tmp_path, data=root), tmp_path / 'work'
    done = run_tool(
        *('tools/train.py', config, '--work-dir', work_dir, '--cfg-options', *SMALL_MODEL),
        *('train_cfg.max_epochs=1', 'val_evaluator.min_region_size=100'),
    )
    words = 'AP is NaN: all 12 true instances have fewer than min_region_size = 100 points'
    assert words in done.stdout + done.stderr


def _write_small_objects(root: Path) -> None:
    """The rooms of case 28 with twelve objects of 40 points each instead of their own."""
    source = CASES / '28' / 'data'
    for path in source.rglob('*'):
        target = root / path.relative_to(source)
        if path.is_dir():
            target.mkdir(parents=True, exist_ok=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    for path in (root / 'instance_mask').iterdir():
        ids = np.zeros(path.stat().st_size // 8, dtype=np.int64)
        ids[: 12 * 40] = np.repeat(np.arange(1, 13), 40)
        ids.tofile(path)
        np.where(ids > 0, 2, 1).astype(np.int64).tofile(root / 'semantic_mask' / path.name)


def _config(case: str, folder: Path, data: Path | None = None) -> Path:
    """A case's config with the places filled in."""
    text = (CASES / case / 'config.py').read_text(encoding='utf-8')
    text = text.replace('PROJECT', str(REPOSITORY))
    text = text.replace(f'CASES/{case}/data', str(data or CASES / case / 'data'))
    path = folder / f'case{case}.py'
    path.write_text(text, encoding='utf-8')
    return path


def _said_by(run) -> list[str]:
    """Lines that are logged while something runs."""
    lines: list[str] = []
    handler, log = logging.Handler(), MMLogger.get_current_instance()
    handler.emit = lambda record: lines.append(record.getMessage())
    log.addHandler(handler)
    try:
        run()
    finally:
        log.removeHandler(handler)
    return lines
