"""What is printed is a config that reads back as the same."""

import pytest
from mmengine.config import Config

from oneformer3d.engine.configs import load_config
from tests.helpers.load_tool import load_tool

CONFIG = 'configs/bifusion_synthetic.py'


def test_it_reads_back_as_what_a_run_uses(tmp_path, capsys):
    words = ['--data_root', 'rooms', '--cfg-options', 'train_dataloader.batch_size=7']
    load_tool('print_config').main([CONFIG, *words])
    printed = tmp_path / 'printed.py'
    printed.write_text(capsys.readouterr().out)

    options = {'data_root': 'rooms', 'train_dataloader.batch_size': 7}
    read = Config.fromfile(printed).to_dict()
    assert read == load_config(CONFIG, options).to_dict()
    assert read['train_dataloader']['batch_size'] == 7


def test_an_unknown_key_is_named():
    with pytest.raises(ValueError, match='nothing'):
        load_tool('print_config').main([CONFIG, '--cfg-options', 'nothing=1'])
