"""Both stages on generated rooms: weights pass on, each part has its own learning rate."""

import pytest
import torch
from mmengine.config import Config

from oneformer3d.mvpnet.training import train_two_stages

STAGE_2D = 'configs/mvpnet_2d_synthetic.py'
STAGE_3D = 'configs/mvpnet_synthetic.py'


def options(root, **more):
    loaders = {f'{split}_dataloader' for split in ('train', 'val', 'test')}
    return {
        'data_root': str(root),
        **{f'{loader}.num_workers': 0 for loader in loaders},
        **{f'{loader}.persistent_workers': False for loader in loaders},
        'train_dataloader.dataset.indices': 2,
        'model.image_net.channels': 16,
        'model.image_net.use_amp': False,
        'train_cfg.max_epochs': 1,
        'train_cfg.val_interval': 1,
        'param_scheduler.end': 1,
        **more,
    }


def test_documented_learning_rates():
    cfg = Config.fromfile(STAGE_3D)
    assert cfg.optim_wrapper.optimizer.lr == 1e-3
    assert cfg.optim_wrapper.optimizer.type == 'Adam'
    backbone = cfg.optim_wrapper.paramwise_cfg.custom_keys['backbone_2d']
    assert backbone.lr_mult * 1e-3 == pytest.approx(1e-4)


def test_two_stages(tiny_rooms, tmp_path):
    small = {
        'model.point_processor.npoint': [64, 32, 16],
        'model.num_train_points': 500,
        'train_dataloader.dataset.pipeline.LoadPosedViews.num_views': 2,
        # a rate of zero shows what the second stage started from
        'optim_wrapper.paramwise_cfg.custom_keys.backbone_2d.lr_mult': 0.0,
    }
    checkpoint = train_two_stages(
        STAGE_3D,
        tmp_path,
        STAGE_2D,
        options=options(tiny_rooms, **small),
        pretrain_options=options(
            tiny_rooms, **{'train_dataloader.dataset.pipeline.LoadViewImages.num_views': 2}
        ),
    )
    assert checkpoint.parent == tmp_path / 'stage_3d'
    first, second = (
        torch.load(path, weights_only=True)['state_dict']
        for path in (next((tmp_path / 'stage_2d').glob('epoch_*.pth')), checkpoint)
    )
    name = 'image_net.backbone_2d.network.layer1.0.conv1.weight'
    torch.testing.assert_close(second[name], first[name], atol=0, rtol=0)
    name = 'image_net.projectors.0.weight'
    assert (second[name] - first[name]).abs().max() > 0
    assert 'point_processor.classifier.1.weight' in second


def test_missing_config(tmp_path):
    with pytest.raises(FileNotFoundError, match='no such config'):
        train_two_stages(tmp_path / 'nothing.py', tmp_path)
