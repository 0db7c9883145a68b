"""``tools/benchmark.py sparse`` measures what it says."""

import json

import pytest
import torch

from tests.helpers.load_tool import load_tool

benchmark = load_tool('benchmark')


def test_runs_and_writes_its_numbers(tmp_path, capsys):
    pytest.importorskip('spconv.pytorch')
    num_threads = torch.get_num_threads()
    out = tmp_path / 'sparse.json'
    arguments = ['--voxels', '3000', '--channels', '8', '--repeats', '2', '--threads', '1']
    assert benchmark.main(['sparse', *arguments, '--out', str(out)]) == 0
    torch.set_num_threads(num_threads)
    result = json.loads(out.read_text())
    assert 5 < result['pairs_per_voxel'] < 20
    ratio = result['spconv']['total_ms'] / result['ours']['total_ms']
    assert result['speedup'] == pytest.approx(ratio)
    assert 'times as long' in capsys.readouterr().out


def test_rooms_are_deterministic_and_of_the_given_size():
    sparse = load_tool('benchmarks/sparse')
    voxels = sparse.room_surface_voxels(20_000, seed=3)
    assert voxels.shape == (20_000, 4)
    assert len(torch.unique(voxels, dim=0)) == 20_000
    assert torch.equal(voxels, sparse.room_surface_voxels(20_000, seed=3))


def test_bad_input_is_one_line(capsys, tmp_path):
    assert benchmark.main(['sparse', '--voxels', '0']) == 1
    assert capsys.readouterr().err.strip().endswith('--voxels must be at least 1, got 0')
    for arguments in (['nothing'], ['sparse', '--out', str(tmp_path / 'no' / 'file.json')]):
        with pytest.raises(SystemExit) as error:
            benchmark.main(arguments)
        assert error.value.code != 0
