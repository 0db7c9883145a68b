"""Records of version 1, which are read and no longer written.

Enters: a record whose checksum was found right. Leaves: its arrays. After the head that all
versions share (see ``record``), a record of version 1 is little-endian:

    per array: length of its name u8 · name · type 2s ('f2', 'i8', …) · ndim u8 · ndim × u32
    zeros up to a multiple of 16, then each array, padded to a multiple of 16

The head's u16 after the version is the number of arrays.
"""

import re
import struct
from math import prod

import numpy as np

_COUNT = struct.Struct('<6xH')
_HEAD_BYTES = 12
_ALIGN = 16
_ARRAY_NAME = re.compile(r'[A-Za-z_][A-Za-z0-9_.-]{0,63}')
_DTYPES = ('b1', 'i1', 'i2', 'i4', 'i8', 'u1', 'u2', 'u4', 'u8', 'f2', 'f4', 'f8')


def arrays_of_version_1(record: bytes) -> dict[str, np.ndarray]:
    """Unpack a record; trusts no number in it.

    Returns:
        Name → array; views of one copy of the record, writable.

    Raises:
        ValueError: the structure is damaged.

    Example:
        >>> head, array = b'O3DF' + bytes([1, 0, 1, 0]) + bytes(4), bytes([1, 0, 2, 0])
        >>> header = bytes([1]) + b'x' + b'i2' + bytes([1]) + bytes([2, 0, 0, 0])
        >>> arrays_of_version_1((head + header).ljust(32, bytes(1)) + array.ljust(16, bytes(1)))
        {'x': array([1, 2], dtype=int16)}
    """
    headers, position = _read_headers(record)
    buffer = bytearray(record)

    arrays = {}
    for name, code, shape in headers:
        if code not in _DTYPES or not _ARRAY_NAME.fullmatch(name):
            raise ValueError('the header is damaged')

        dtype = np.dtype(f'<{code}')
        end = _aligned(position + prod(shape) * dtype.itemsize)
        if end > len(record):
            raise ValueError(f'{name} reaches beyond the record')
        arrays[name] = np.ndarray(shape, dtype, buffer=buffer, offset=position)
        position = end
    return arrays


def _read_headers(record: bytes) -> tuple[list[tuple[str, str, tuple[int, ...]]], int]:
    """Name, type and shape of each array, and where the first one begins."""
    try:
        (num_arrays,) = _COUNT.unpack_from(record)
        position, headers = _HEAD_BYTES, []
        for _ in range(num_arrays):
            (name_length,) = struct.unpack_from('<B', record, position)
            text = struct.Struct(f'<{name_length}s2sB')
            name, code, ndim = text.unpack_from(record, position + 1)
            position += 1 + text.size

            shape = struct.unpack_from(f'<{ndim}I', record, position)
            position += 4 * ndim
            headers.append((name.decode('ascii'), code.decode('ascii'), shape))
    except (struct.error, UnicodeDecodeError) as error:
        raise ValueError('the header is damaged') from error

    return headers, _aligned(position)


def _aligned(position: int) -> int:
    return -(-position // _ALIGN) * _ALIGN
