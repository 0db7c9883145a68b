"""tools/store.py: each command once, and one line for each kind of bad input."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from oneformer3d.store import FeatureStore, FeatureStoreWriter
from tests.helpers.load_tool import load_tool
from tests.helpers.store_samples import STAMP, frame_names, put_all

NAMES = frame_names(2, 4)


@pytest.fixture(scope='module')
def tool():
    return load_tool('store')


def write_store(path, names=NAMES, stamp=STAMP, rank=0):
    with FeatureStoreWriter(path, stamp, rank) as writer:
        put_all(writer, names, stamp)
    return str(path)


def test_verify_a_whole_store(tool, tmp_path, capsys):
    path = write_store(tmp_path / 'store')
    tool.main(['verify', path])
    assert capsys.readouterr().out == f'{path}: whole, 8 records\n'


def test_verify_lists_what_is_wrong(tool, tmp_path, capsys):
    path = write_store(tmp_path / 'store')
    write_store(path, NAMES[:1], rank=1)
    shards = sorted(Path(path).glob('*.lmdb'))
    os.truncate(shards[0], shards[0].stat().st_size - 4096)
    shards[1].unlink()
    with pytest.raises(ValueError, match='problems'):
        tool.main(['verify', path])
    out = capsys.readouterr().out
    assert f'{shards[0]}: ' in out
    assert f'{shards[1]}: no such shard' in out


def test_stats_as_table_and_json(tool, tmp_path, capsys):
    path = write_store(tmp_path / 'store')
    tool.main(['stats', path])
    table = capsys.readouterr().out
    for words in ('ViT-B-16', 'float16 (4, 3, 5) × 8', 'features.r0000.lmdb', 'scene0001_00'):
        assert words in table
    tool.main(['stats', path, '--json'])
    stats = json.loads(capsys.readouterr().out)
    assert stats['stamp']['encoder'] == 'ViT-B-16'
    assert stats['records'] == 8
    assert stats['scenes'] == {'scene0000_00': 4, 'scene0001_00': 4}


def test_merge_export_and_import(tool, tmp_path, capsys):
    a = write_store(tmp_path / 'a', NAMES[:5])
    b = write_store(tmp_path / 'b', NAMES[3:])
    out = str(tmp_path / 'out')
    for expected in ('8 new records, 8 in all', '0 new records, 8 in all'):
        tool.main(['merge', out, a, b])
        assert expected in capsys.readouterr().out
    for format in ('npz', 'h5'):
        tool.main(['export', out, str(tmp_path / format), '--format', format])
        assert '8 new records' in capsys.readouterr().out
    tool.main(['import', str(tmp_path / 'back'), str(tmp_path / 'npz'), str(tmp_path / 'h5')])
    assert '8 new records, 8 in all' in capsys.readouterr().out
    assert FeatureStore(tmp_path / 'back').checksums() == FeatureStore(out).checksums()


def test_merge_of_two_encoders_says_which(tool, tmp_path):
    a = write_store(tmp_path / 'a')
    b = write_store(tmp_path / 'b', stamp=replace(STAMP, encoder='RN50'))
    with pytest.raises(ValueError, match=f"{b}: .*encoder is 'RN50', expected 'ViT-B-16'"):
        tool.main(['merge', str(tmp_path / 'out'), a, b])


def test_bad_input_is_one_line_and_a_status(tool, tmp_path, capsys, monkeypatch):
    missing = tmp_path / 'nothing'
    monkeypatch.setattr(sys, 'argv', ['store.py', 'verify', str(missing)])
    with pytest.raises(SystemExit) as caught:
        tool.run_tool(tool.main)
    assert caught.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith(f'error: {missing}/manifest.json: no such file')
    assert told.count('\n') == 1
