"""A fused model with CLIP inside, from the command line: nothing is extracted before."""

from oneformer3d.clip.encoder import ClipEncoder
from oneformer3d.store import FeatureStore
from tests.helpers.clip_files import CHANNELS, write_small_clip

CONFIG = 'configs/bifusion_online_synthetic.py'
SMALL_MODEL = (
    'model.encoder.encoder_3d.num_channels=8',
    'model.encoder.encoder_3d.backbone.num_planes=[8,16]',
    'model.encoder.point_channels=8',
    'model.decoder.in_channels=8',
    'model.decoder.d_model=16',
    'model.decoder.num_heads=2',
    'model.decoder.hidden_dim=16',
    'model.decoder.num_layers=1',
    'model.test_cfg.topk_insts=20',
)
QUICK = (
    'train_dataloader.num_workers=0',
    'train_dataloader.persistent_workers=false',
    'val_dataloader.num_workers=0',
    'val_dataloader.persistent_workers=false',
    'test_dataloader.num_workers=0',
    'test_dataloader.persistent_workers=false',
    'train_dataloader.dataset.pipeline.LoadPosedViews.view_dropout=0',
    'train_dataloader.dataset.pipeline.LoadPosedViews.image_dropout=0',
    'train_cfg.max_epochs=1',
    'train_cfg.val_interval=9',
)


def test_training_fills_the_store_and_testing_reads_it(run_tool, tiny_rooms, tmp_path):
    weights = write_small_clip(tmp_path / 'clip.pth')
    tower = (f'model.encoder.clip.weights={weights}', f'model.decoder.clip_channels={CHANNELS}')
    folders = ('--data-root', str(tiny_rooms), '--clip-store', str(tmp_path / 'store'))
    options = ('--cfg-options', *SMALL_MODEL, *QUICK, *tower)
    work = tmp_path / 'work'
    run_tool('tools/train.py', CONFIG, '--work-dir', str(work), *folders, *options)

    stamp = ClipEncoder(weights=weights, dtype='fp16').stamp(pixel_shuffle=2)
    stored = set(FeatureStore(tmp_path / 'store', expected_stamp=stamp))
    assert len({frame.partition('/')[0] for frame in stored}) == 5, 'rooms, one to validate'

    checkpoint = str(work / 'epoch_1.pth')
    run_tool(
        'tools/test.py',
        CONFIG,
        checkpoint,
        '--work-dir',
        str(tmp_path / 'test'),
        *folders,
        *options,
    )
    assert set(FeatureStore(tmp_path / 'store')) == stored
