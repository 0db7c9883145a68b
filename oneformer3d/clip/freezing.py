"""A CLIP tower that trains only its last blocks.

Enters: the visual tower of an ``open_clip`` model. Leaves: the same tower, partly frozen.
"""

from typing import Any

from torch import nn


def freeze_clip_except_last_blocks(visual: nn.Module, num_train_blocks: int = 0) -> None:
    """Freeze an ``open_clip`` visual tower except its last residual blocks, in place.

    Frozen parameters need no gradient, and frozen layers compute in evaluation mode (batch norm
    keeps its statistics, patches are not dropped) even when the model around them is told to
    ``.train()``. Embeddings, norms, projections and attention pooling outside the blocks are
    always frozen.

    Args:
        visual: a ViT (``transformer.resblocks``), a ``ModifiedResNet`` (``layer1`` … ``layer4``)
            or a timm tower with ``trunk.blocks``.
        num_train_blocks: how many of the last blocks train; 0 freezes everything.

    Raises:
        TypeError: a tower without such blocks.
        ValueError: more blocks than there are.

    Example:
        >>> from open_clip.modified_resnet import ModifiedResNet
        >>> visual = ModifiedResNet((1, 1, 1, 1), output_dim=16, heads=2, image_size=32, width=8)
        >>> freeze_clip_except_last_blocks(visual, num_train_blocks=1)
        >>> sorted({name.split('.')[0] for name, p in visual.named_parameters() if p.requires_grad})
        ['layer4']
    """
    blocks = _residual_blocks(visual)
    if not 0 <= num_train_blocks <= len(blocks):
        raise ValueError(
            f'num_train_blocks must be between 0 and {len(blocks)}, got {num_train_blocks}'
        )
    first_trained = len(blocks) - num_train_blocks

    visual.requires_grad_(False)
    trained: set[nn.Module] = set()
    for block in blocks[first_trained:]:
        block.requires_grad_(True)
        trained |= set(block.modules())

    # containers of a trained block compute nothing themselves
    for module in visual.modules():
        if trained.isdisjoint(module.modules()):
            module.register_forward_pre_hook(_compute_in_eval_mode)
    visual.train(visual.training)


def _compute_in_eval_mode(module: nn.Module, inputs: Any) -> None:
    """Forward pre-hook of frozen layers; a plain function, so that towers can be copied."""
    if module.training:
        module.eval()


def _residual_blocks(visual: nn.Module) -> list[nn.Module]:
    """Residual blocks of a visual tower from input to output."""
    children = dict(visual.named_modules())
    if 'transformer.resblocks' in children:
        return list(children['transformer.resblocks'].children())
    if all(f'layer{i}' in children for i in range(1, 5)):
        return [block for i in range(1, 5) for block in children[f'layer{i}'].children()]
    if 'trunk.blocks' in children:
        return list(children['trunk.blocks'].children())
    raise TypeError(f'{type(visual).__name__} has no residual blocks known here')
