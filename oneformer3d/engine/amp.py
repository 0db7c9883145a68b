"""Mixed precision on a CPU, where mmengine's own wrapper refuses to run.

bfloat16 has float32's range, so there is no loss scaling: the forward pass runs
under ``torch.autocast('cpu')``, parameters and optimiser stay float32.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.config import ConfigDict
from mmengine.optim import OptimWrapper
from torch import nn

from oneformer3d.files.devices import warn_of_emulated_bfloat16
from oneformer3d.registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class CPUAmpOptimWrapper(OptimWrapper):
    """Optimiser wrapper whose forward context is bfloat16 autocast on the CPU."""

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Forward pass of ``model`` under autocast, gradient accumulation as usual."""
        with super().optim_context(model), torch.autocast('cpu', dtype=torch.bfloat16):
            yield


def enable_amp(optim_wrapper: ConfigDict) -> ConfigDict:
    """Config of the wrapper for mixed precision on the device at hand.

    Args:
        optim_wrapper: a plain ``OptimWrapper`` config or one that is mixed already.

    Returns:
        A copy with ``AmpOptimWrapper`` and dynamic loss scale on CUDA,
        ``CPUAmpOptimWrapper`` elsewhere.

    Raises:
        ValueError: if the config names another wrapper.
    """
    known = ('OptimWrapper', 'AmpOptimWrapper', 'CPUAmpOptimWrapper')
    wrapper_type = optim_wrapper.get('type', 'OptimWrapper')
    if wrapper_type not in known:
        raise ValueError(f'--amp needs an optim_wrapper of {known}, got {wrapper_type!r}')
    enabled = ConfigDict(optim_wrapper)
    if torch.cuda.is_available():
        enabled.type = 'AmpOptimWrapper'
        enabled.setdefault('loss_scale', 'dynamic')
    else:
        warn_of_emulated_bfloat16('cpu', '--amp')
        enabled.type = 'CPUAmpOptimWrapper'
        enabled.pop('loss_scale', None)
    return enabled
