"""Checkpoint files, read without executing anything in them.

Enters: a file of ``torch.save``. Leaves: a flat dictionary of tensors.
"""

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .errors import one_line

# Keys under which training programs nest the state dict.
_NESTING_KEYS = ('state_dict', 'model')
# What a truncated or foreign file makes the reader raise.
UNREADABLE = (
    pickle.UnpicklingError,
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
)


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
            f'data ({one_line(error)})'
        ) from error
    except UNREADABLE as error:
        raise ValueError(f'{path}: not a checkpoint file ({one_line(error)})') from error

    return unwrap_state_dict(checkpoint, str(path))


def unwrap_state_dict(checkpoint: Any, origin: str) -> dict[str, Tensor]:
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
