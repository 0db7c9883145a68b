"""Keys and records of the feature store: pure functions between arrays and bytes.

Enters: a scene, a frame and named arrays. Leaves: a key and a record of bytes, and the arrays
again. No file is touched here. A record is, little-endian,

    magic b'O3DF' · version u16 · zero u16 · checksum u32 · a safetensors file

The checksum is the CRC-32 of the key and of everything in the record but itself. Arrays are
sorted by name, so that equal content is equal bytes. ``version1`` reads older records.
"""

import re
import struct
import zlib
from collections.abc import Mapping

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from oneformer3d.files.names import validate_scene_name

from .version1 import arrays_of_version_1

SCHEMA_VERSION = 2  # that is written
SCHEMA_VERSIONS = (1, 2)  # that are read
MAX_RECORD_BYTES = 0xFFFF_FFFF  # LMDB's own limit for a value
DTYPES = (
    *('bool', 'int8', 'int16', 'int32', 'int64', 'uint8', 'uint16', 'uint32', 'uint64'),
    *('float16', 'float32', 'float64'),
)

_MAGIC = b'O3DF'
_HEAD = struct.Struct('<4sHHI')
_CHECKSUM = slice(8, 12)
_ARRAY_NAME = re.compile(r'(?!__metadata__$)[A-Za-z_][A-Za-z0-9_.-]{0,63}')


class CorruptRecordError(ValueError):
    """Bytes that are no record, or no longer the record that was written."""


def record_key(scene: str, frame: str) -> bytes:
    """Key of a record; at most 257 of the 511 bytes that LMDB allows.

    Raises:
        ValueError: a name that is not safe as a file name.

    Example:
        >>> record_key('scene0000_00', '00017')
        b'scene0000_00/00017'
    """
    return f'{validate_scene_name(scene)}/{validate_scene_name(frame)}'.encode('ascii')


def split_key(key: str | bytes) -> tuple[str, str]:
    """Scene and frame of a key, checked.

    Raises:
        ValueError: not ``scene/frame`` with two valid names.

    Example:
        >>> split_key('scene0000_00/00017')
        ('scene0000_00', '00017')
    """
    text = key.decode('ascii', errors='replace') if isinstance(key, bytes) else key
    scene, slash, frame = text.partition('/')
    if not slash:
        raise ValueError(f'{text!r}: not a key; expected scene/frame')
    return validate_scene_name(scene), validate_scene_name(frame)


def encode_record(key: bytes, arrays: Mapping[str, np.ndarray]) -> bytes:
    """Pack named arrays into one record.

    Args:
        key: the record's key; it enters the checksum, so a record cannot change places.
        arrays: name → array of bool, integers or floats, any shape.

    Raises:
        ValueError: no arrays, a bad name or type, inf or nan (float16 overflows silently).

    Example:
        >>> record = encode_record(b'room/00000', {'feat': np.ones((2, 1, 1), np.float16)})
        >>> record[:4], len(record)
        (b'O3DF', 88)
        >>> decode_record(b'room/00000', record, 'here')['feat'].shape
        (2, 1, 1)
    """
    where = key.decode('ascii')
    if not arrays:
        raise ValueError(f'{where}: a record needs at least one array')
    body = save({name: _storable(name, arrays[name], where) for name in sorted(arrays)})
    if len(body) > MAX_RECORD_BYTES - _HEAD.size:
        raise ValueError(f'{where}: {len(body)} bytes are more than a record may have')

    head = _HEAD.pack(_MAGIC, SCHEMA_VERSION, 0, 0)[: _CHECKSUM.start]
    checksum = zlib.crc32(body, zlib.crc32(head, zlib.crc32(key)))
    return b''.join((head, struct.pack('<I', checksum), body))


def decode_record(key: bytes, record: bytes, source: str) -> dict[str, np.ndarray]:
    """Check a record of any version and unpack it.

    Args:
        key: the key it was found under.
        record: its bytes.
        source: the name that messages begin with.

    Returns:
        Name → array; copies that may be written to.

    Raises:
        CorruptRecordError: the checksum or the structure is wrong.

    Example:
        >>> record = encode_record(b'room/00000', {'level': np.array(7)})
        >>> decode_record(b'room/00000', record, 'here')
        {'level': array(7)}
        >>> decode_record(b'room/00001', record, 'here')  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        oneformer3d...CorruptRecordError: here: room/00001: the checksum is wrong, ...
    """
    where = f'{source}: {key.decode("ascii", errors="replace")}'
    version = _version(record, where)
    view = memoryview(record)
    head, body = view[: _CHECKSUM.start], view[_CHECKSUM.stop :]
    if record_checksum(record) != zlib.crc32(body, zlib.crc32(head, zlib.crc32(key))):
        raise CorruptRecordError(f'{where}: the checksum is wrong, the record is damaged')

    try:
        return arrays_of_version_1(record) if version == 1 else load(bytes(body))
    except (SafetensorError, KeyError, ValueError) as error:  # made so on purpose
        raise CorruptRecordError(f'{where}: {error}') from error


def current_record(key: bytes, record: bytes, source: str) -> bytes:
    """A checked record as it is written today: then equal content is equal bytes.

    Raises:
        CorruptRecordError: as ``decode_record``.

    Example:
        >>> record = encode_record(b'room/00000', {'level': np.array(7)})
        >>> current_record(b'room/00000', record, 'here') == record
        True
    """
    return encode_record(key, decode_record(key, record, source))


def record_checksum(record: bytes) -> int:
    """The checksum that a record states; it is not computed here.

    Example:
        >>> record = encode_record(b'room/00000', {'level': np.array(7)})
        >>> record_checksum(record) == int.from_bytes(record[8:12], 'little')
        True
    """
    return _HEAD.unpack_from(record)[3]


def _version(record: bytes, where: str) -> int:
    if len(record) < _HEAD.size:
        raise CorruptRecordError(f'{where}: the header is damaged')
    magic, version, *_ = _HEAD.unpack_from(record)
    if magic != _MAGIC or version not in SCHEMA_VERSIONS:
        raise CorruptRecordError(
            f'{where}: not a record of version {" or ".join(map(str, SCHEMA_VERSIONS))} '
            f'(found {magic!r}, {version})'
        )
    return version


def _storable(name: str, array: np.ndarray, where: str) -> np.ndarray:
    """The array as safetensors takes it: contiguous; checked."""
    if not isinstance(name, str) or not _ARRAY_NAME.fullmatch(name):
        raise ValueError(f'{where}: {name!r} is not a name for an array')
    array = np.asarray(array, order='C')
    if array.dtype.name not in DTYPES:
        raise ValueError(f'{where}: {name} has type {array.dtype}, which cannot be stored')
    if not _all_finite(array):
        raise ValueError(f'{where}: {name} has inf or nan ({array.dtype})')
    return array


def _all_finite(array: np.ndarray) -> bool:
    if array.dtype.kind != 'f':
        return True
    if array.dtype == np.float16 and array.dtype.isnative:
        # 30 times faster than numpy's isfinite on halves: an exponent of all ones.
        return not ((array.view(np.uint16) & 0x7C00) == 0x7C00).any()
    return bool(np.isfinite(array).all())
