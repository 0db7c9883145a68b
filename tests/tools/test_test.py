"""tools/test.py with test-time augmentation, on an untrained model."""

import json

import torch
from mmengine.registry import init_default_scope

from oneformer3d.engine.configs import load_config, read_values
from oneformer3d.registry import MODELS

from .test_train import CONFIG, SMALL_MODEL


def test_mirrored_scenes_are_tested_and_drawn(run_tool, tiny_rooms, tmp_path):
    init_default_scope('mmdet3d')
    options = read_values(dict(option.split('=', 1) for option in SMALL_MODEL))
    model = MODELS.build(load_config(CONFIG, options).model)
    torch.save({'state_dict': model.state_dict()}, tmp_path / 'untrained.pth')

    out = tmp_path / 'metrics.json'
    run_tool(
        'tools/test.py', CONFIG, tmp_path / 'untrained.pth', '--tta', '--out', out,
        '--work-dir', tmp_path / 'work', '--show-dir', tmp_path / 'pictures',
        '--data-root', tiny_rooms, '--cfg-options', *SMALL_MODEL, 'test_dataloader.num_workers=0',
    )  # fmt: skip
    assert 0 <= json.loads(out.read_text())['semantic/mIoU'] <= 1
    assert sorted(path.suffix for path in (tmp_path / 'pictures').iterdir()) == ['.ply', '.png']
