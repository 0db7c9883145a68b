"""A CLIP tower that trains only its last blocks.

Enters: the visual tower of an ``open_clip`` model. Leaves: the same tower, partly frozen.
"""

from torch import nn


def freeze_clip_except_last_blocks(visual: nn.Module, num_train_blocks: int = 0) -> None:
    """Freeze an ``open_clip`` visual tower except its last residual blocks, in place.

    Frozen parameters need no gradient, and frozen parts stay in eval mode (batch norm keeps its
    statistics, patches are not dropped) even when the model around them calls ``.train()``.
    Embeddings, norms, projections and attention pooling outside the blocks are always frozen.

    Args:
        visual: a ViT (``transformer.resblocks``), a ``ModifiedResNet`` (``layer1`` … ``layer4``)
            or a timm tower with ``trunk.blocks``.
        num_train_blocks: how many of the last blocks train; 0 freezes everything.

    Raises:
        TypeError: a tower without such blocks.
        ValueError: more blocks than there are.
    """
    blocks = _residual_blocks(visual)
    if not 0 <= num_train_blocks <= len(blocks):
        raise ValueError(
            f'num_train_blocks must be between 0 and {len(blocks)}, got {num_train_blocks}'
        )
    visual.requires_grad_(False)
    trained = blocks[len(blocks) - num_train_blocks :]
    for block in trained:
        block.requires_grad_(True)
    visual.train = _TrainOnly(visual, trained)
    visual.train(visual.training)


class _TrainOnly:
    """Stands in for ``module.train``: only the given blocks follow the mode.

    An object and not a closure, so that the module can still be pickled and copied.
    """

    def __init__(self, module: nn.Module, blocks: list[nn.Module]) -> None:
        self.module = module
        self.blocks = blocks

    def __call__(self, mode: bool = True) -> nn.Module:
        type(self.module).train(self.module, False)
        for block in self.blocks:
            block.train(mode)
        return self.module


def _residual_blocks(visual: nn.Module) -> list[nn.Module]:
    """Residual blocks of a visual tower from input to output."""
    if hasattr(visual, 'transformer') and hasattr(visual.transformer, 'resblocks'):
        return list(visual.transformer.resblocks)
    if all(hasattr(visual, f'layer{i}') for i in range(1, 5)):
        return [block for i in range(1, 5) for block in getattr(visual, f'layer{i}')]
    if hasattr(visual, 'trunk') and hasattr(visual.trunk, 'blocks'):
        return list(visual.trunk.blocks)
    raise TypeError(f'{type(visual).__name__} has no residual blocks known here')
