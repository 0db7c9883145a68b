"""Checkpoints are plain, whole, and put the random generators back."""

import os
import pickle
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.fileio import get_file_backend
from mmengine.logging import HistoryBuffer

from oneformer3d.engine.checkpoint_hook import (
    SafeCheckpointHook,
    checkpoint_from_plain,
    plain_from_checkpoint,
    random_states,
    set_random_states,
)


def checkpoint_like_mmengine() -> dict:
    history = HistoryBuffer(max_length=10)
    for step in range(15):
        history.update(step * 0.5, 2)
    return {
        'meta': {'epoch': 3, 'iter': np.int64(7), 'palette': [[1, 2, 3]]},
        'state_dict': {'weight': torch.randn(2, 3)},
        'message_hub': {
            'log_scalars': {'train/loss': history},
            'runtime_info': {'best': np.float64(0.25), 'matrix': np.arange(6).reshape(2, 3)},
        },
        'param_schedulers': [{'last_step': 4, 'base_values': [0.1]}],
    }


def test_file_loads_with_weights_only_and_comes_back_equal(tmp_path):
    original = checkpoint_like_mmengine()
    torch.save(original, tmp_path / 'unsafe.pth')
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / 'unsafe.pth', weights_only=True)

    torch.save(plain_from_checkpoint(original), tmp_path / 'safe.pth')
    loaded = checkpoint_from_plain(torch.load(tmp_path / 'safe.pth', weights_only=True))

    history = original['message_hub']['log_scalars']['train/loss']
    restored = loaded['message_hub']['log_scalars']['train/loss']
    assert isinstance(restored, HistoryBuffer)
    for expected, actual in zip(history.data, restored.data, strict=True):
        np.testing.assert_array_equal(expected, actual)
    assert restored.mean(4) == history.mean(4)
    restored.update(1.0)
    assert len(restored.data[0]) == 10, 'the maximal length is kept'
    assert loaded['meta'] == {'epoch': 3, 'iter': 7, 'palette': [[1, 2, 3]]}
    np.testing.assert_array_equal(
        loaded['message_hub']['runtime_info']['matrix'], np.arange(6).reshape(2, 3)
    )
    assert torch.equal(loaded['state_dict']['weight'], original['state_dict']['weight'])


def test_object_without_plain_form_is_refused():
    with pytest.raises(TypeError, match='SimpleNamespace'):
        plain_from_checkpoint({'meta': SimpleNamespace()})


def test_random_sequences_continue(tmp_path):
    draw = lambda: (random.random(), np.random.rand(), torch.rand(1).item())  # noqa: E731
    draw()
    torch.save(random_states(), tmp_path / 'states.pth')
    expected = [draw() for _ in range(3)]
    set_random_states(torch.load(tmp_path / 'states.pth', weights_only=True))
    assert [draw() for _ in range(3)] == expected


def test_generators_are_restored_on_resume_only():
    hook = SafeCheckpointHook()
    checkpoint = checkpoint_like_mmengine()
    hook.before_save_checkpoint(None, checkpoint)
    expected = torch.rand(1)

    for is_resumed in (True, False):
        torch.manual_seed(1)
        hook.after_load_checkpoint(None, dict(checkpoint))
        hook.before_train(SimpleNamespace(_resume=is_resumed))
        assert torch.equal(torch.rand(1), expected) == is_resumed


def test_evaluation_takes_nothing_from_the_random_sequence():
    hook = SafeCheckpointHook()
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    first = torch.rand(1)
    hook.before_val(None)
    torch.rand(5)
    hook.after_val(None)
    assert torch.equal(torch.cat([first, torch.rand(1)]), expected)


@pytest.mark.parametrize('failing', ['fsync', 'replace'])
def test_interrupted_write_keeps_the_last_good_file(tmp_path, monkeypatch, failing):
    backend = get_file_backend(backend_args={'backend': 'atomic'})
    path = tmp_path / 'epoch_1.pth'
    backend.put(b'good', path)

    def fail(*_):
        raise OSError('no space left on device')

    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(OSError, match='no space'):
        backend.put(b'newer', path)
    assert path.read_bytes() == b'good'
    assert [entry.name for entry in tmp_path.iterdir()] == ['epoch_1.pth']


def test_the_first_loss_that_is_not_finite_ends_the_training():
    hook, runner = SafeCheckpointHook(), SimpleNamespace(iter=6, work_dir='here')
    good = {'loss': torch.tensor(2.0), 'seg_loss': torch.tensor(1.0), 'grad_norm': torch.tensor(1)}
    hook.after_train_iter(runner, 0, outputs=good)
    bad = {**good, 'loss': torch.tensor(torch.nan), 'seg_loss': torch.tensor(torch.inf)}
    with pytest.raises(ValueError, match=r'step 7: not finite: loss, seg_loss; .* here'):
        hook.after_train_iter(runner, 0, outputs=bad)


@pytest.mark.parametrize('event', ['before_save_checkpoint', 'after_load_checkpoint'])
def test_weights_that_are_not_finite_are_neither_saved_nor_loaded(event):
    checkpoint = checkpoint_like_mmengine()
    checkpoint['state_dict']['weight'][0, 0] = torch.nan
    with pytest.raises(ValueError, match="'weight' are not finite"):
        getattr(SafeCheckpointHook(), event)(None, checkpoint)
