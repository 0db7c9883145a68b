"""The tool that draws where an instance looks, on a small untrained model."""

import cv2
import pytest
import torch

from oneformer3d.store import FeatureStoreWriter, StoreStamp
from tests.helpers.load_tool import load_tool
from tests.helpers.view_samples import infos_of

STAMP = StoreStamp(
    encoder='test',
    weights_digest='0',
    layer='last',
    mode='tokens',
    attn_mode='vanilla',
    input_size=(32, 32),
    dtype='float16',
    preprocessing='none',
    channels=4,
    grid=(6, 8),
)


@pytest.fixture(scope='module')
def prepared(tiny_rooms, tmp_path_factory):
    """Options for the config, and a checkpoint of random weights."""
    folder = tmp_path_factory.mktemp('vis_stm')
    with FeatureStoreWriter(folder / 'store', STAMP) as writer:
        for scene in infos_of(tiny_rooms):
            for image in scene['images']:
                arrays = {'feat': torch.randn(4, 6, 8).half().numpy()}
                writer.put(scene['scene_id'], image['frame'], arrays)
    store = str(folder / 'store')
    dataset = 'test_dataloader.dataset'
    options = [
        f'data_root={tiny_rooms}',
        f'{dataset}.ann_file=oneformer3d_infos_train.json',
        f'clip_store={store}',
        'model.test_cfg.npoint_thr=0',
    ]
    from mmengine.registry import DefaultScope

    from oneformer3d.engine.configs import load_config
    from oneformer3d.registry import MODELS

    cfg = load_config('configs/stm_synthetic.py', dict(o.split('=', 1) for o in options[:-1]))
    with DefaultScope.overwrite_default_scope('mmdet3d'):
        model = MODELS.build(cfg.model)
    decoder = model.decoder
    with torch.no_grad():  # every mask is the whole room; those of random weights may be empty
        for vector in (decoder.out_norm.bias, decoder.x_mask[2].bias):
            vector.fill_(0.1)
        for weight in (decoder.out_norm.weight, decoder.x_mask[2].weight):
            weight.zero_()
    torch.save({'state_dict': model.state_dict()}, folder / 'weights.pth')
    return options, folder / 'weights.pth'


def run(prepared, *arguments):
    options, weights = prepared
    load_tool('vis_stm').main(
        ['configs/stm_synthetic.py', str(weights), *arguments, '--cfg-options', *options]
    )


def test_draws_the_views_of_an_instance(prepared, tiny_rooms, tmp_path, capsys):
    scene = infos_of(tiny_rooms)[1]['scene_id']
    run(prepared, '--scene', scene, '--out', str(tmp_path))
    pictures = list(tmp_path.glob(f'{scene}.0.*.png'))
    assert len(pictures) == 1
    height, width = infos_of(tiny_rooms)[1]['image_size']
    shape = cv2.imread(str(pictures[0])).shape
    assert shape[0] == 3 * height
    assert shape[1] % (3 * width) == 0
    assert 'score' in capsys.readouterr().out


def test_unknown_scene_and_instance(prepared, tmp_path):
    with pytest.raises(ValueError, match='no scene nowhere'):
        run(prepared, '--scene', 'nowhere', '--out', str(tmp_path))
    with pytest.raises(ValueError, match='instances, got 100000'):
        run(prepared, '--instance', '100000', '--out', str(tmp_path))
