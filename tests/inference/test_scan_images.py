"""Images of a folder at inference: the same views as those that training reads from a store."""

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from oneformer3d.data.infos import read_infos
from oneformer3d.engine.configs import load_config
from oneformer3d.extraction.run import extract_features
from oneformer3d.extraction.settings import make_settings
from oneformer3d.inference.inferencer import OneFormer3DInferencer
from oneformer3d.inference.scan_images import ScanImageReader
from oneformer3d.registry import DATASETS, MODELS
from tests.helpers.clip_files import CHANNELS, write_small_clip

CONFIG = 'configs/bifusion_synthetic.py'
SCENE = 'room5000_00'


@pytest.fixture(scope='module')
def files(tiny_rooms, tmp_path_factory):
    """Weights of CLIP, config and checkpoint of a small fused model with random weights."""
    folder = tmp_path_factory.mktemp('fused')
    weights = write_small_clip(folder / 'clip.pth')
    store = folder / 'store'
    extract_features(
        make_settings(
            {
                'data_root': str(tiny_rooms),
                'output_dir': str(store),
                'weights': str(weights),
                'dtype': 'fp32',
                'exact_resize': True,
                'rate_points': 0,
            }
        )
    )
    cfg = load_config(CONFIG, {'clip_store': str(store), 'data_root': str(tiny_rooms)})
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet3d'):
        model = MODELS.build(cfg.model)
    # at its zero initialisation the fusion would not be seen in the result
    for name, parameter in model.named_parameters():
        if name.endswith('.side'):
            torch.nn.init.normal_(parameter)
    torch.save({'state_dict': model.state_dict()}, folder / 'model.pth')
    return cfg, folder / 'model.pth', weights


def test_views_of_a_folder_are_those_of_the_store(files, tiny_rooms):
    cfg, _, weights = files
    with DefaultScope.overwrite_default_scope('mmdet3d'):
        dataset = DATASETS.build(cfg.test_dataloader.dataset)
        sample = dataset[0]['inputs']
    stored = sample['views']
    images = ScanImageReader({'weights': str(weights)}, CHANNELS)(
        tiny_rooms / 'posed_images' / SCENE
    )
    ours = images.views(sample['points'].numpy())
    assert ours.frames == stored.frames
    assert ours.image_size == stored.image_size
    torch.testing.assert_close(ours.world_from_cam, stored.world_from_cam)
    assert len(stored.pairs) > 100
    for name in ('point', 'view', 'uv'):
        expected = getattr(stored.pairs, name)
        torch.testing.assert_close(getattr(ours.pairs, name), expected, rtol=0, atol=1e-3)
    torch.testing.assert_close(ours.feat.float(), stored.feat.float(), rtol=1e-3, atol=2e-3)


def test_images_change_what_a_fused_model_says(files, tiny_rooms):
    cfg, checkpoint, weights = files
    folder = tiny_rooms / 'posed_images' / SCENE
    seen = OneFormer3DInferencer(cfg, checkpoint, 'cpu', clip={'weights': str(weights)})
    with_images = seen(folder)
    num_frames = len(
        read_infos(tiny_rooms / 'oneformer3d_infos_val.json')['data_list'][0]['images']
    )
    assert len(with_images.views) == num_frames
    without = OneFormer3DInferencer(cfg, checkpoint, 'cpu')(folder)
    assert len(without.views) == 0
    np.testing.assert_array_equal(with_images.points, without.points)
    assert (with_images.semantic != without.semantic).mean() > 0.01
    # a cloud has no images
    assert seen(with_images.points).views == ()


def test_few_views_are_spread_over_the_scan(files, tiny_rooms):
    _, _, weights = files
    reader = ScanImageReader({'weights': str(weights)}, CHANNELS, max_views=2)
    images = reader(tiny_rooms / 'posed_images' / SCENE)
    assert len(images.frames) == len(images.feat) == 2
    assert images.frames[0] == '00000'
    assert images.frames[1] > '00001'


def test_bad_settings_name_the_fault(files):
    cfg, checkpoint, weights = files
    with pytest.raises(ValueError, match='trained with 7'):
        ScanImageReader({'weights': str(weights)}, 7)
    with pytest.raises(ValueError, match='at least 1'):
        ScanImageReader({'weights': str(weights)}, CHANNELS, max_views=0)
    with pytest.raises(FileNotFoundError, match='nowhere'):
        OneFormer3DInferencer(cfg, checkpoint, 'cpu', clip={'weights': 'nowhere.pth'})
    plain = Config.fromfile('configs/oneformer3d_synthetic.py')
    with DefaultScope.overwrite_default_scope('mmdet3d'):
        model = MODELS.build(plain.model)
    path = checkpoint.with_name('plain.pth')
    torch.save({'state_dict': model.state_dict()}, path)
    with pytest.raises(ValueError, match='reads no image features'):
        OneFormer3DInferencer(plain, path, 'cpu', clip={'weights': str(weights)})
