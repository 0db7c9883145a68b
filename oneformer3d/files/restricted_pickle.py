"""Read a pickle that holds plain data, and refuse one that wants anything else.

Enters: a file as mmdet3d writes its infos. Leaves: dictionaries, lists, tuples, sets, text,
bytes, numbers and numpy arrays of plain dtypes. A pickle is a program that may call what it
names; here every name it may use stands for a small stand-in of ours, so that no foreign
constructor and no ``__setstate__`` of numpy ever runs on foreign bytes. Any other name is refused,
and so is what would take memory or time out of proportion to the file (``pickle_costs``).
"""

import io
import pickle
from collections import OrderedDict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from .errors import one_line
from .pickle_costs import check_costs

_PARTS_PER_BYTE = 10  # of the data, shared ones counted every time; real infos have 1 at most
_PARTS_OF_ANY = 100_000  # what a file of any length may hold
_PLAIN_KINDS = 'biufcSU'  # bool, integers, floats, complex, bytes, text


def load_plain_pickle(path: str | Path) -> Any:
    """Read a pickle of plain data.

    Args:
        path: the file.

    Returns:
        What it holds, built of containers, text, numbers and numpy arrays.

    Raises:
        ValueError: the pickle is broken or names something that is not plain data.
    """
    content = Path(path).read_bytes()
    try:
        check_costs(io.BytesIO(content), len(content))
        return _Resolver(len(content)).resolve(_PlainUnpickler(io.BytesIO(content)).load())
    except (
        pickle.UnpicklingError,
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        AttributeError,
        EOFError,
        ImportError,
        MemoryError,
        OverflowError,
        RecursionError,
    ) as error:  # what a broken or hostile stream makes the unpickler raise
        raise ValueError(f'{path}: not a pickle of plain data: {one_line(error)}') from error


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Give the stand-in of a known name; everything else is refused."""
        module = module.replace('numpy._core', 'numpy.core')
        try:
            return _KNOWN[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f'it asks for {module}.{name}') from None

    def persistent_load(self, pid: Any) -> Any:
        """Refuse references to things outside the file."""
        raise pickle.UnpicklingError('it refers to things outside the file')


class _NdarrayName:
    """Stands for the class ``numpy.ndarray``, which a pickle passes on but must not call."""


class _Dtype:
    """Stands for a dtype under construction; only its byte order may be set afterwards."""

    def __init__(self, spec: Any, *_flags: Any) -> None:
        if not isinstance(spec, str):
            raise pickle.UnpicklingError('it holds an array of a structured dtype')
        self.dtype = np.dtype(spec)
        if self.dtype.kind not in _PLAIN_KINDS:
            raise pickle.UnpicklingError(f'it holds an array of dtype {spec!r}')

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 5 or state[1] not in ('<', '>', '|', '='):
            raise pickle.UnpicklingError('it holds an array of an unknown dtype')
        if state[2] is not None or state[3] is not None or state[4] is not None:
            raise pickle.UnpicklingError('it holds an array of a structured dtype')
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """Stands for an array under construction; ``value`` is the array once the state has come."""

    def __init__(self, *_names: Any) -> None:
        self.value = np.empty(0)

    def __setstate__(self, state: Any) -> None:
        _version, shape, dtype, is_fortran, content = state
        self.value = _array_of(content, dtype, shape, 'F' if is_fortran else 'C')


def _array_of(content: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    if not isinstance(dtype, _Dtype) or not isinstance(content, (bytes, bytearray)):
        raise pickle.UnpicklingError('it holds an array of objects')
    order = 'F' if order == 'F' else 'C'
    # a view: however many arrays are made of the same bytes, they take no memory yet
    return np.frombuffer(content, dtype=dtype.dtype).reshape(shape, order=order)


def _from_buffer(content: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    array = _Array()
    array.value = _array_of(content, dtype, shape, order)
    return array


def _scalar(dtype: Any, content: Any) -> np.generic:
    return _array_of(content, dtype, (1,), 'C')[0]


def _latin1_bytes(text: Any, encoding: Any = 'latin1') -> bytes:
    """How protocol 2 and below spell bytes."""
    if not isinstance(text, str) or encoding != 'latin1':
        raise pickle.UnpicklingError('it holds bytes in an unknown spelling')
    return text.encode('latin1')


_KNOWN: dict[tuple[str, str], type | Callable] = {
    ('builtins', 'set'): set,
    ('builtins', 'frozenset'): frozenset,
    ('builtins', 'complex'): complex,
    ('builtins', 'bytearray'): bytearray,
    ('__builtin__', 'set'): set,
    ('__builtin__', 'frozenset'): frozenset,
    ('collections', 'OrderedDict'): OrderedDict,
    ('_codecs', 'encode'): _latin1_bytes,
    ('numpy', 'ndarray'): _NdarrayName,
    ('numpy', 'dtype'): _Dtype,
    ('numpy.core.multiarray', '_reconstruct'): _Array,
    ('numpy.core.multiarray', 'scalar'): _scalar,
    ('numpy.core.numeric', '_frombuffer'): _from_buffer,
}


class _Resolver:
    """Replaces the stand-ins by what they stand for, all through the containers.

    A part that is in several places is gone through once; how large the whole is where all of them
    are counted, which is what going through the result would take, is bounded.
    """

    def __init__(self, num_bytes: int) -> None:
        self.allowance = _PARTS_OF_ANY + _PARTS_PER_BYTE * num_bytes
        self.num_array_bytes = num_bytes  # no file holds arrays of more bytes than it has itself
        self.known: dict[int, tuple[Any, int]] = {}  # of containers and arrays: result, parts

    def resolve(self, value: Any) -> Any:
        """The data."""
        return self._counted(value)[0]

    def _counted(self, value: Any) -> tuple[Any, int]:
        if not isinstance(value, (dict, list, tuple, set, frozenset, _Array)):
            return _plain(value), 1
        if id(value) not in self.known:
            self.known[id(value)] = self._made_of(value)
        return self.known[id(value)]

    def _made_of(self, value: Any) -> tuple[Any, int]:
        if isinstance(value, _Array):
            return self._copy(value), 1
        if isinstance(value, dict):
            keys, items = self._all(value), self._all(value.values())
            made: Any = dict(zip((key for key, _ in keys), (item for item, _ in items)))
            parts = keys + items
        else:
            parts = self._all(value)
            made = type(value)(part for part, _ in parts)

        total = 1 + sum(count for _, count in parts)
        if total > self.allowance:
            raise pickle.UnpicklingError('it holds itself so often that nobody could go through it')
        return made, total

    def _all(self, values: Iterable[Any]) -> list[tuple[Any, int]]:
        return [self._counted(value) for value in values]

    def _copy(self, array: _Array) -> np.ndarray:
        self.num_array_bytes -= array.value.nbytes
        if self.num_array_bytes < 0:
            raise pickle.UnpicklingError('its arrays hold more bytes than the file')
        return array.value.copy('K')


def _plain(value: Any) -> Any:
    """What has no parts."""
    if isinstance(value, _Dtype):
        return value.dtype
    if isinstance(value, (_NdarrayName, type)) or callable(value):
        raise pickle.UnpicklingError('it holds a name instead of data')
    return value
