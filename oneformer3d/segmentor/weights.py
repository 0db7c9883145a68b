"""Checkpoints: read safely, fit the layouts there have been, load strictly.

Enters: a checkpoint file or state dict, ours or published. Leaves: a model whose every parameter
came from it.

spconv has had two layouts of a weight. Its modules hold (out, kD, kH, kW, in) since version 2.2, as
do files that a training run saves; the published files hold (kD, kH, kW, in, out). Which one a
file has is decided by shape, tensor by tensor. Convolutions that image features went through after
their shuffle are widened to those before it (``backbones.sub_pixel``).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from oneformer3d.backbones.sub_pixel import SubPixelConv, widen_shared_weight
from oneformer3d.files.checkpoints import load_checkpoint_file, unwrap_state_dict

_MAX_NAMES = 3


def load_checkpoint(model: nn.Module, source: str | Path | Mapping[str, Any]) -> None:
    """Load every parameter and buffer of a model, and nothing else.

    Args:
        model: its state dict names what is wanted.
        source: a checkpoint file, or its content; either sparse-convolution layout.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is unreadable, or belongs to another model.
    """
    if isinstance(source, Mapping):
        origin, state_dict = 'state dict', unwrap_state_dict(source, 'state dict')
    else:
        origin, state_dict = str(source), load_checkpoint_file(source)

    # any layout, then no name and no shape may differ
    try:
        state_dict = adapt_layouts(state_dict, model)
    except ValueError as error:
        raise ValueError(f'{origin}: {error}') from error
    faults = differences(state_dict, model)
    if faults:
        raise ValueError(f'{origin}: checkpoint of another model: {"; ".join(faults)}')
    model.load_state_dict(state_dict, strict=True)


def adapt_layouts(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """A new dictionary, in which every weight has the layout that the model's has.

    Raises:
        ValueError: a weight in the layout that results from moving axes of a published file again.
    """
    widened = adapt_shared_convolutions(state_dict, model)
    return adapt_sparse_conv_layout(widened, model.state_dict())


def published_layout(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Sparse convolutions (out, kD, kH, kW, in), as spconv's modules have them → as published."""
    return {
        name: value.permute(1, 2, 3, 4, 0).contiguous() if value.ndim == 5 else value
        for name, value in state_dict.items()
    }


def adapt_shared_convolutions(
    state_dict: Mapping[str, Tensor], model: nn.Module
) -> dict[str, Tensor]:
    """A new dictionary, in which sub-pixel convolutions have the width that the model's have."""
    convolutions = {id(m.weight): m for m in model.modules() if isinstance(m, SubPixelConv)}
    adapted = dict(state_dict)
    for name, parameter in model.state_dict(keep_vars=True).items():
        if id(parameter) in convolutions:  # under the name that it has in the state dict
            prefix = name.removesuffix('weight')
            widen_shared_weight(convolutions[id(parameter)], adapted, prefix)
    return adapted


def adapt_sparse_conv_layout(
    state_dict: Mapping[str, Tensor], model_state: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Bring sparse-convolution weights to the layout of the model.

    A five-dimensional weight that has the model's shape is kept; one in the published layout
    (kD, kH, kW, in, out) is moved to (out, kD, kH, kW, in). Everything else passes unchanged.

    Args:
        state_dict: tensors by name.
        model_state: the model's own, for their shapes.

    Returns:
        A new dictionary.

    Raises:
        ValueError: a weight in the layout that results from moving axes of a published file again.
    """
    return {
        name: _adapted(name, value, model_state[name].shape) if name in model_state else value
        for name, value in state_dict.items()
    }


def _adapted(name: str, value: Tensor, shape: torch.Size) -> Tensor:
    if len(shape) != 5 or value.ndim != 5 or value.shape == shape:
        return value
    moved = value.permute(4, 0, 1, 2, 3)
    if moved.shape == shape:
        return moved.contiguous()
    if moved.permute(4, 0, 1, 2, 3).shape == shape:
        raise ValueError(
            f'{name} has shape {tuple(value.shape)} instead of {tuple(shape)}: its axes were moved '
            'twice, take the file before its last conversion'
        )
    return value


def differences(state_dict: Mapping[str, Tensor], model: nn.Module) -> list[str]:
    """What keeps a strict load from succeeding, a few names each."""
    model_state = model.state_dict()
    shapes = [
        f'{name} {tuple(value.shape)} instead of {tuple(model_state[name].shape)}'
        for name, value in state_dict.items()
        if name in model_state and value.shape != model_state[name].shape
    ]
    kinds = {
        'missing': [name for name in model_state if name not in state_dict],
        'unexpected': [name for name in state_dict if name not in model_state],
        'of another shape': shapes,
    }
    return [_enumerate(kind, names) for kind, names in kinds.items() if names]


def _enumerate(kind: str, names: list[str]) -> str:
    listed = ', '.join(name[:120] for name in names[:_MAX_NAMES])
    return f'{len(names)} {kind} ({listed}{", …" if len(names) > _MAX_NAMES else ""})'
