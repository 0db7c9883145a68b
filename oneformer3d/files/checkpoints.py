"""Checkpoint files, read without executing anything in them.

Enters: a file of ``torch.save`` or of safetensors. Leaves: a flat dictionary of finite tensors; or
the newest file of a training that is whole.
"""

import io
import math
import pickle
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from .atomic import atomic_write_bytes
from .errors import one_line
from .pickle_costs import check_costs

_ARCHIVE = b'PK\x03\x04'  # how the files of torch.save begin
# epochs that are done, iterations beyond them
_COUNTED = re.compile(r'(?=[ei])(epoch_(?P<epoch>\d+))?_?(iter_(?P<iter>\d+))?\.pth')
_NUM_OLD_PICKLES = 5  # magic number, version, machine, content, keys of the storages
# what a file's tensors may claim: weights may be tied, but not repeated without end
_CLAIMS_PER_BYTE, _CLAIMS_OF_ANY = 100, 10_000_000
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
        path: a file of ``torch.save``, whose state dict may be nested under 'state_dict' or
            'model', or a ``.safetensors``.

    Returns:
        Tensors by name, on the CPU.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is damaged, holds objects beside tensors and plain data, holds no
            state dict, or weights that are not finite.
    """
    state_dict = unwrap_state_dict(read_checkpoint(path), str(path))
    check_finite(state_dict, str(path))
    return state_dict


def read_checkpoint(path: str | Path, device: str | torch.device = 'cpu') -> Any:
    """Whatever plain data a checkpoint file holds, its checksums compared.

    Args:
        path: a file of ``torch.save``, or a ``.safetensors``.
        device: where its tensors go.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is damaged, or holds objects beside tensors and plain data.
    """
    path = Path(path)
    check_whole(path)
    if path.suffix == '.safetensors':
        return _read_safetensors(path, str(device))
    try:
        _check_costs(path)
        content = torch.load(path, map_location=device, weights_only=True)
        _check_claims(content, path.stat().st_size)
        return content
    except pickle.UnpicklingError as error:
        # what torch says before is how to switch the check off, and after it where to read of it
        text = str(error)
        start = 'WeightsUnpickler error:' if 'WeightsUnpickler' in text else 'trusted source.'
        _, _, fault = text.rpartition(start)
        raise ValueError(
            f'{path}: not loaded, for it is damaged or holds objects beside tensors and plain '
            f'data ({" ".join(fault.partition("Check the doc")[0].split())})'
        ) from error
    except UNREADABLE as error:
        raise ValueError(f'{path}: not a checkpoint file ({one_line(error)})') from error


def _check_costs(path: Path) -> None:
    """Refuse programs in the file that would take memory or time out of proportion."""
    num_bytes = path.stat().st_size
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for part in archive.infolist():
                if part.filename.endswith('.pkl'):
                    check_costs(io.BytesIO(archive.read(part)), num_bytes)
        return

    # torch's old format: pickles one behind the other, then the numbers
    with open(path, 'rb') as file:
        for _ in range(_NUM_OLD_PICKLES):
            check_costs(file, num_bytes)


def _check_claims(content: Any, num_bytes: int) -> None:
    """Refuse tensors that show the same few numbers again and again."""
    claimed = sum(tensor.numel() * tensor.element_size() for tensor in _tensors(content))
    if claimed > _CLAIMS_OF_ANY + _CLAIMS_PER_BYTE * num_bytes:
        raise ValueError(f'its tensors claim {claimed} bytes, and it holds {num_bytes}')


def _tensors(content: Any) -> Iterator[Tensor]:
    """Tensors within dictionaries, lists and tuples, each container looked through once."""
    seen, waiting = set(), [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (Mapping, list, tuple)) and id(value) not in seen:
            seen.add(id(value))
            waiting += value.values() if isinstance(value, Mapping) else value


def write_checkpoint(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write a file of ``torch.save``, whole or not at all.

    Raises:
        OSError: it could not be written; torch's own writer would hide why.
    """
    buffer = io.BytesIO()
    torch.save(content, buffer)
    atomic_write_bytes(path, buffer.getbuffer())


def write_weights(path: str | Path, state_dict: Mapping[str, Tensor], note: str) -> None:
    """Write weights alone, floats halved, as a ``.safetensors``; whole or not at all.

    Args:
        path: the file.
        state_dict: tensors by name.
        note: where they come from; stands in the file's header.
    """
    halved = {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in state_dict.items()
    }
    metadata = {'note': note, 'format': 'pt', 'crc32': str(_checksum(halved))}
    atomic_write_bytes(path, save(halved, metadata))


def _read_safetensors(path: Path, device: str) -> dict[str, Tensor]:
    """The tensors of a file, compared with the checksum that ours carry."""
    try:
        with safe_open(path, 'pt') as file:
            metadata = file.metadata() or {}
        tensors = load_file(path)
    except SafetensorError as error:
        raise ValueError(f'{path}: not a safetensors file ({one_line(error)})') from error

    if 'crc32' in metadata and metadata['crc32'] != str(_checksum(tensors)):
        raise ValueError(f'{path}: damaged, the checksum of its tensors is another')
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def _checksum(tensors: Mapping[str, Tensor]) -> int:
    """CRC-32 of the bytes of all tensors in the order of their names."""
    crc = 0
    for name in sorted(tensors):
        crc = zlib.crc32(tensors[name].reshape(-1).view(torch.uint8).numpy().data, crc)
    return crc


def check_whole(path: str | Path) -> None:
    """Compare the checksums in a checkpoint with its content, which torch does not do.

    Files of torch's old format, which is no archive, have none.

    Raises:
        FileNotFoundError: no such file.
        ValueError: cut short or changed since it was written; names the file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such checkpoint file')
    with open(path, 'rb') as file:
        is_archive = file.read(len(_ARCHIVE)) == _ARCHIVE
    if not is_archive:
        if path.stat().st_size == 0:
            raise ValueError(f'{path}: not a checkpoint file (it is empty)')
        return

    try:
        with zipfile.ZipFile(path) as archive:
            packed = [p.filename for p in archive.infolist() if p.compress_type]
            damaged = None if packed else archive.testzip()
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError) as error:
        raise ValueError(f'{path}: not a whole checkpoint file ({one_line(error)})') from error
    if packed:  # torch never does, and a few bytes could unpack to any number
        raise ValueError(f'{path}: not a checkpoint file (its part {packed[0]!r} is compressed)')
    if damaged is not None:
        raise ValueError(f'{path}: damaged, the checksum of its part {damaged!r} is another')


def check_finite(state_dict: Mapping[str, Tensor], origin: str) -> None:
    """Raise ValueError, naming the first of them, for weights that are not finite."""
    for name, value in state_dict.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise ValueError(f'{origin}: the weights {name!r} are not finite')


def find_whole_checkpoint(folder: str | Path) -> tuple[Path | None, tuple[str, ...]]:
    """The newest checkpoint of a training that is whole, and what is wrong with newer ones.

    Only files of the folder itself are looked at, wherever its ``last_checkpoint`` points: a moved
    folder goes on, and no file elsewhere is taken for the run's own.

    Args:
        folder: of a training, with files ``epoch_N.pth``, ``iter_N.pth`` or, stopped within an
            epoch, ``epoch_N_iter_N.pth``.

    Returns:
        The file, None where the folder has no checkpoints; a message for each that was passed over.

    Raises:
        ValueError: there are checkpoints, and none is whole.
    """
    passed_over = []
    for path in _newest_first(Path(folder)):
        try:
            check_whole(path)
        except ValueError as error:
            passed_over.append(str(error))
            continue
        return path, tuple(passed_over)

    if passed_over:
        raise ValueError(f'{folder}: none of its checkpoints is whole: {passed_over[0]}')
    return None, ()


def _newest_first(folder: Path) -> list[Path]:
    """Checkpoints by what their names count, those of a former run of the folder last."""
    counted = {}
    for path in folder.glob('*.pth'):
        numbers = _COUNTED.fullmatch(path.name)
        if numbers is not None:
            counted[path] = (int(numbers['epoch'] or 0), int(numbers['iter'] or 0))

    # A longer run may have been here before: what is beyond the last one written comes after it.
    pointer = folder / 'last_checkpoint'
    last = folder / Path(pointer.read_text().strip()).name if pointer.is_file() else folder
    limit = counted.get(last, (math.inf, 0))
    return sorted(counted, key=lambda path: (counted[path] <= limit, counted[path]), reverse=True)


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
