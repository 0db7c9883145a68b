"""Checkpoints: read safely, fit the sparse-convolution layout, load strictly.

Enters: a checkpoint file or state dict, ours or published. Leaves: a model whose every parameter
came from it.

spconv has had two layouts of a weight. Its modules hold (out, kD, kH, kW, in) since version 2.2, as
do files that a training run saves; the published files hold (kD, kH, kW, in, out). Which one a
file has is decided by shape, tensor by tensor.
"""

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

# Keys under which training programs nest the state dict.
_NESTING_KEYS = ('state_dict', 'model')
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
        origin, state_dict = 'state dict', _unwrap(source, 'state dict')
    else:
        origin, state_dict = str(source), load_checkpoint_file(source)
    model_state = model.state_dict()
    try:
        state_dict = adapt_sparse_conv_layout(state_dict, model_state)
    except ValueError as error:
        raise ValueError(f'{origin}: {error}') from error
    faults = _differences(state_dict, model_state)
    if faults:
        raise ValueError(f'{origin}: checkpoint of another model: {"; ".join(faults)}')
    model.load_state_dict(state_dict, strict=True)


def load_published(model: nn.Module, source: str | Path | Mapping[str, Any]) -> None:
    """``load_checkpoint``, which reads published files and our own alike."""
    load_checkpoint(model, source)


def load_checkpoint_file(path: str | Path) -> dict[str, Tensor]:
    """Read the state dict of a checkpoint file; nothing in the file is executed.

    Args:
        path: a file of ``torch.save``; the state dict may be nested under 'state_dict' or 'model'.

    Returns:
        Tensors by name, on the CPU.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is damaged, holds objects beside tensors and plain data, or holds no
            state dict.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such checkpoint file')
    try:
        checkpoint = torch.load(path, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f'{path}: not loaded, for it is damaged or holds objects beside tensors and plain '
            f'data ({_first_line(error)})'
        ) from error
    except (
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
        KeyError,
        IndexError,
        TypeError,
        AttributeError,
        OverflowError,
        zipfile.BadZipFile,
    ) as error:  # what a truncated or foreign file makes the reader raise
        raise ValueError(f'{path}: not a checkpoint file ({_first_line(error)})') from error
    return _unwrap(checkpoint, str(path))


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


def _unwrap(checkpoint: Any, origin: str) -> dict[str, Tensor]:
    """The state dict in a checkpoint."""
    content = checkpoint
    for key in _NESTING_KEYS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f'{origin}: expected a state dict, got {type(content).__name__}')
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise ValueError(
                f'{origin}: expected a state dict of tensors, got {type(value).__name__} at '
                f'{str(name)[:80]!r}'
            )
    return dict(content)


def _differences(state_dict: Mapping[str, Tensor], model_state: Mapping[str, Tensor]) -> list[str]:
    """What keeps a strict load from succeeding, a few names each."""
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


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
