"""Checkpoint files that were damaged, and which of a training's files is taken."""

import shutil

import numpy as np
import pytest
import torch

from oneformer3d.files.checkpoints import (
    check_whole,
    find_whole_checkpoint,
    load_checkpoint_file,
    write_weights,
)


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / 'epoch_1.pth'
    torch.save({'state_dict': {'a.weight': torch.randn(40, 50), 'a.steps': torch.ones(3)}}, path)
    return path


def test_every_flipped_bit_of_the_weights_is_noticed(checkpoint):
    whole = checkpoint.read_bytes()
    first = whole.index(torch.load(checkpoint)['state_dict']['a.weight'].numpy().tobytes())
    generator = np.random.default_rng(0)
    for position in generator.integers(first, first + 8000, 60):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << generator.integers(8)
        checkpoint.write_bytes(damaged)
        torch.load(checkpoint, weights_only=True)  # torch itself does not mind
        with pytest.raises(ValueError, match=r'epoch_1\.pth: damaged, the checksum'):
            load_checkpoint_file(checkpoint)


@pytest.mark.parametrize('size', [0, 1, 10, 3000, -1, -30])
def test_files_that_were_cut_are_refused(checkpoint, size):
    whole = checkpoint.read_bytes()
    checkpoint.write_bytes(whole[:size] if size else b'')
    with pytest.raises(ValueError, match=r'epoch_1\.pth: ') as caught:
        load_checkpoint_file(checkpoint)
    assert '\n' not in str(caught.value)


def test_a_whole_file_passes_and_the_old_format_too(checkpoint, tmp_path):
    check_whole(checkpoint)
    assert load_checkpoint_file(checkpoint)['a.weight'].shape == (40, 50)
    torch.save({'a': torch.ones(2)}, tmp_path / 'old.pth', _use_new_zipfile_serialization=False)
    assert load_checkpoint_file(tmp_path / 'old.pth')['a'].tolist() == [1, 1]
    with pytest.raises(FileNotFoundError, match='no such checkpoint'):
        check_whole(tmp_path / 'absent.pth')


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_weights_that_are_not_finite_are_named(tmp_path, value):
    weights = torch.ones(3, 3)
    weights[1, 2] = value
    torch.save({'fine': torch.ones(2), 'bad.weight': weights}, tmp_path / 'a.pth')
    with pytest.raises(ValueError, match=r"a\.pth: the weights 'bad\.weight' are not finite"):
        load_checkpoint_file(tmp_path / 'a.pth')


@pytest.fixture
def training(checkpoint):
    """A folder with the checkpoints of three epochs."""
    for epoch in (2, 3):
        shutil.copy(checkpoint, checkpoint.with_name(f'epoch_{epoch}.pth'))
    return checkpoint.parent


def test_the_newest_whole_checkpoint_is_taken(training):
    assert find_whole_checkpoint(training) == (training / 'epoch_3.pth', ())

    (training / 'epoch_3.pth').write_bytes(b'')
    found, passed_over = find_whole_checkpoint(training)
    assert found == training / 'epoch_2.pth'
    assert len(passed_over) == 1
    assert 'epoch_3.pth' in passed_over[0]

    whole = (training / 'epoch_2.pth').read_bytes()
    (training / 'epoch_2.pth').write_bytes(whole[: len(whole) // 2])
    assert find_whole_checkpoint(training)[0] == training / 'epoch_1.pth'


def test_numbers_say_what_is_newest_and_a_former_run_comes_last(training, checkpoint):
    for name in ('epoch_10', 'epoch_2_iter_7', 'epoch_100', 'best_miou_epoch_300', 'epoch_400a'):
        shutil.copy(checkpoint, training / f'{name}.pth')
    assert find_whole_checkpoint(training)[0].name == 'epoch_100.pth'

    # as a moved folder has it
    (training / 'last_checkpoint').write_text('/elsewhere/epoch_10.pth')
    found = []
    while True:
        try:
            newest, _ = find_whole_checkpoint(training)
        except ValueError:
            break
        found.append(newest.stem)
        newest.write_bytes(b'')
    assert found == ['epoch_10', 'epoch_3', 'epoch_2_iter_7', 'epoch_2', 'epoch_1', 'epoch_100']


def test_nothing_outside_the_folder_is_taken(training, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp('elsewhere') / 'epoch_9.pth'
    shutil.copy(training / 'epoch_1.pth', elsewhere)
    (training / 'last_checkpoint').write_text(str(elsewhere))
    assert find_whole_checkpoint(training)[0] == training / 'epoch_3.pth'


def test_a_folder_without_checkpoints_has_none_and_one_of_broken_ones_says_so(training, tmp_path):
    assert find_whole_checkpoint(tmp_path / 'nothing here') == (None, ())
    for path in training.glob('*.pth'):
        path.write_bytes(b'PK\x03\x04 nothing')
    with pytest.raises(ValueError, match='none of its checkpoints is whole'):
        find_whole_checkpoint(training)


def test_weights_are_passed_on_halved(tmp_path) -> None:
    torch.manual_seed(0)
    state = {'a.weight': torch.randn(7, 5).T, 'a.num_batches_tracked': torch.tensor(3)}
    path = tmp_path / 'weights.safetensors'
    write_weights(path, state, 'of a test')
    loaded = load_checkpoint_file(path)
    assert torch.equal(loaded['a.weight'], state['a.weight'].half())
    assert int(loaded['a.num_batches_tracked']) == 3

    whole = path.read_bytes()
    path.write_bytes(whole[:-2] + bytes([whole[-2] ^ 4]) + whole[-1:])
    with pytest.raises(ValueError, match=r'weights.safetensors: damaged, the checksum'):
        load_checkpoint_file(path)
    path.write_bytes(whole[:-9])
    with pytest.raises(ValueError, match=r'weights.safetensors: not a safetensors file'):
        load_checkpoint_file(path)
    state['a.weight'] = torch.full((2, 2), 1e9)  # beyond what halves can hold
    write_weights(path, state, '')
    with pytest.raises(ValueError, match='finite'):
        load_checkpoint_file(path)
