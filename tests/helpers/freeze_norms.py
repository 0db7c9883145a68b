"""A hook for the test of several processes: batch norms keep their statistics."""

from mmengine.hooks import Hook
from torch import nn

from oneformer3d.registry import HOOKS


@HOOKS.register_module()
class FreezeNorms(Hook):
    """Puts batch norms in eval mode before every step, so that a batch's split has no effect."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        for module in runner.model.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.eval()
