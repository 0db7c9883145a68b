"""Mixed precision on the CPU: bfloat16 inside, float32 parameters and steps."""

import pytest
import torch
from mmengine.config import ConfigDict
from torch import nn

from oneformer3d.engine.amp import CPUAmpOptimWrapper, enable_amp


def test_forward_is_bfloat16_and_step_is_float32():
    model = nn.Linear(8, 4)
    before = model.weight.detach().clone()
    wrapper = CPUAmpOptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    x = torch.randn(16, 8)
    with wrapper.optim_context(model):
        y = model(x)
    assert y.dtype == torch.bfloat16
    wrapper.update_params(y.float().square().mean())
    assert model.weight.dtype == torch.float32

    twin = nn.Linear(8, 4)
    twin.load_state_dict({'weight': before, 'bias': model.bias.detach()})
    step = model.weight.detach() - before
    assert step.abs().max() > 0

    reference = before.clone().requires_grad_()
    loss = (x @ reference.T + twin.bias).square().mean()
    (gradient,) = torch.autograd.grad(loss, reference)
    torch.testing.assert_close(step, -0.1 * gradient, rtol=0.05, atol=2e-3)


def test_enable_amp_chooses_by_device(monkeypatch):
    config = ConfigDict(type='OptimWrapper', optimizer=ConfigDict(type='AdamW'))
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    assert enable_amp(config).type == 'CPUAmpOptimWrapper'
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    assert enable_amp(config).type == 'AmpOptimWrapper'
    assert enable_amp(config).loss_scale == 'dynamic'
    assert config.type == 'OptimWrapper', 'the argument is left alone'


def test_unknown_wrapper_is_refused():
    with pytest.raises(ValueError, match='ApexOptimWrapper'):
        enable_amp(ConfigDict(type='ApexOptimWrapper'))
