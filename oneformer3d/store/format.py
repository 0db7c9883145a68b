"""Stamp, keys and records of the feature store: pure functions between arrays and bytes.

Enters: a scene, a frame and named arrays. Leaves: a key and a record of bytes, and the arrays
again. No file is touched here. A record is little-endian:

    magic 4s · version u16 · number of arrays u16 · checksum u32
    per array: length of its name u8 · name · type 2s ('f2', 'i8', …) · ndim u8 · ndim × u32
    zeros up to a multiple of 16, then each array, padded to a multiple of 16

The checksum is the CRC-32 of the key and of everything in the record but itself. Arrays are
sorted by name, so that equal content is equal bytes.
"""

import json
import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from math import prod
from typing import Any

import numpy as np

from oneformer3d.files.names import validate_scene_name

SCHEMA_VERSION = 1
FEATURE_NAME = 'feat'  # the dense map (C, h, w); its width, type and grid are in the stamp
MAX_RECORD_BYTES = 0xFFFF_FFFF  # LMDB's own limit for a value

_MAGIC = b'O3DF'
_HEAD = struct.Struct('<4sHHI')
_CHECKSUM = slice(8, 12)
_ALIGN = 16
_ARRAY_NAME = re.compile(r'[A-Za-z_][A-Za-z0-9_.-]{0,63}')
_DTYPES = ('b1', 'i1', 'i2', 'i4', 'i8', 'u1', 'u2', 'u4', 'u8', 'f2', 'f4', 'f8')


class StampMismatchError(ValueError):
    """Features of one encoder were met where those of another were expected."""


class CorruptRecordError(ValueError):
    """Bytes that are no record, or no longer the record that was written."""


@dataclass(frozen=True, kw_only=True)
class StoreStamp:
    """What made the features of a store; two stores mix only if all of it is equal.

    Attributes:
        encoder: model name, e.g. ``ViT-B-16``.
        weights_digest: digest of the weights, so that a file's name does not matter.
        layer: layer or layers the map was taken from.
        mode: ``tokens`` or ``clip`` (projected to the text space).
        attn_mode: attention of the last block, e.g. ``vanilla``, ``sclip``.
        input_size: (H, W) of the image the encoder saw, None where it varies.
        dtype: numpy name of the map's type, e.g. ``float16``.
        preprocessing: resize, crop, mean and std in words.
        postprocessing: what happened to the map afterwards, e.g. ``pixel_shuffle2``.
        channels: C of the stored map.
        grid: (h, w) of the stored map, None where it varies (then each record tells its own).
        schema_version: of stamp and records.
    """

    encoder: str
    weights_digest: str
    layer: str
    mode: str
    attn_mode: str
    input_size: tuple[int, int] | None
    dtype: str
    preprocessing: str
    channels: int
    grid: tuple[int, int] | None
    postprocessing: str = 'none'
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        for name in ('input_size', 'grid'):
            size = getattr(self, name)
            if size is None:
                continue
            if (
                not isinstance(size, tuple)
                or len(size) != 2
                or not all(type(side) is int and side > 0 for side in size)
            ):
                raise ValueError(f'stamp: {name} should be (height, width), got {size!r}')
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type is str and not isinstance(value, str):
                raise ValueError(f'stamp: {field.name} should be text, got {value!r}')
            if field.type is int and (type(value) is not int or value <= 0):
                raise ValueError(f'stamp: {field.name} should be a count, got {value!r}')
        if np.dtype(self.dtype).str[1:] not in _DTYPES:
            raise ValueError(f'stamp: dtype {self.dtype!r} cannot be stored')

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        return asdict(self)

    def to_bytes(self) -> bytes:
        """Canonical JSON: equal stamps give equal bytes."""
        return json.dumps(asdict(self), sort_keys=True).encode()


def stamp_from_dict(values: Any, source: str) -> StoreStamp:
    """Read a stamp that came from a file.

    Raises:
        ValueError: missing, unknown or wrong fields, or another schema; names ``source``.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f'{source}: the stamp should be an object, got {type(values).__name__}')
    if values.get('schema_version') != SCHEMA_VERSION:
        raise ValueError(
            f'{source}: schema version {values.get("schema_version")!r}, '
            f'this program reads {SCHEMA_VERSION}'
        )
    known = {field.name for field in fields(StoreStamp)}
    if set(values) != known:
        odd = sorted(set(values) ^ known)
        raise ValueError(f'{source}: stamp fields missing or unknown: {", ".join(odd)}')
    sizes = {
        name: tuple(values[name]) if isinstance(values[name], list) else values[name]
        for name in ('input_size', 'grid')
    }
    try:
        return StoreStamp(**{**values, **sizes})
    except (TypeError, ValueError) as error:
        raise ValueError(f'{source}: {error}') from error


def check_stamp(
    stored: StoreStamp, expected: StoreStamp | Mapping[str, Any] | None, source: str
) -> None:
    """Compare a store's stamp with what the caller needs.

    Args:
        stored: the stamp found.
        expected: a whole stamp, a mapping with just the fields that matter, or None.
        source: the name that the message begins with.

    Raises:
        StampMismatchError: naming every differing field with both values.
        ValueError: ``expected`` names a field that stamps do not have.
    """
    if expected is None:
        return
    wanted = expected.to_dict() if isinstance(expected, StoreStamp) else dict(expected)
    found = stored.to_dict()
    unknown = sorted(set(wanted) - set(found))
    if unknown:
        raise ValueError(f'a stamp has no field {", ".join(unknown)}')
    differing = [
        f'{name} is {found[name]!r}, expected {value!r}'
        for name, value in wanted.items()
        if found[name] != (tuple(value) if isinstance(value, list) else value)
    ]
    if differing:
        raise StampMismatchError(f'{source}: made by another encoder: {"; ".join(differing)}')


def check_feature(arrays: Mapping[str, np.ndarray], stamp: StoreStamp, source: str) -> None:
    """Raise ValueError if the dense map is not of the width, grid and type in the stamp."""
    if FEATURE_NAME not in arrays:
        return
    feature = np.asarray(arrays[FEATURE_NAME])
    grid = stamp.grid if stamp.grid is not None else feature.shape[1:]
    expected = (stamp.channels, *grid)
    if feature.ndim != 3 or feature.shape != expected or feature.dtype != np.dtype(stamp.dtype):
        raise ValueError(
            f'{source}: {FEATURE_NAME} should be {stamp.dtype} {expected}, '
            f'got {feature.dtype} {feature.shape}'
        )


def record_key(scene: str, frame: str) -> bytes:
    """Key of a record, ``scene/frame``; at most 257 of the 511 bytes that LMDB allows.

    Raises:
        ValueError: a name that is not safe as a file name.
    """
    return f'{validate_scene_name(scene)}/{validate_scene_name(frame)}'.encode('ascii')


def split_key(key: str | bytes) -> tuple[str, str]:
    """Scene and frame of a key, checked.

    Raises:
        ValueError: not ``scene/frame`` with two valid names.
    """
    text = key.decode('ascii', errors='replace') if isinstance(key, bytes) else key
    scene, slash, frame = text.partition('/')
    if not slash:
        raise ValueError(f'{text!r}: not a key; expected scene/frame')
    return validate_scene_name(scene), validate_scene_name(frame)


def encode_record(key: bytes, arrays: Mapping[str, np.ndarray]) -> bytearray:
    """Pack named arrays into one record.

    Args:
        key: the record's key; it enters the checksum, so a record cannot change places.
        arrays: name → array of bool, integers or floats, any shape.

    Raises:
        ValueError: no arrays, a bad name or type, inf or nan (float16 overflows silently).
    """
    where = key.decode('ascii')
    if not arrays:
        raise ValueError(f'{where}: a record needs at least one array')
    arrays = {name: np.asarray(arrays[name]) for name in sorted(arrays)}
    header = bytearray(_HEAD.pack(_MAGIC, SCHEMA_VERSION, len(arrays), 0))
    for name, array in arrays.items():
        header += _array_header(name, array, where)
    offsets, end = [], _aligned(len(header))
    for array in arrays.values():
        offsets.append(end)
        end = _aligned(end + array.nbytes)
    if end > MAX_RECORD_BYTES:
        raise ValueError(f'{where}: {end} bytes are more than a record may have')
    record = bytearray(end)
    record[: len(header)] = header
    for offset, array in zip(offsets, arrays.values()):
        dtype = array.dtype.newbyteorder('<')
        np.ndarray(array.shape, dtype, buffer=record, offset=offset)[...] = array
    record[_CHECKSUM] = struct.pack('<I', _checksum(key, record))
    return record


def decode_record(key: bytes, record: bytearray, source: str) -> dict[str, np.ndarray]:
    """Check a record and unpack it.

    Args:
        key: the key it was found under.
        record: the bytes; the arrays are views of them, writable where they are.
        source: the name that messages begin with.

    Raises:
        CorruptRecordError: the checksum or the structure is wrong.
    """
    where = f'{source}: {key.decode("ascii", errors="replace")}'
    layout = list(_walk_header(record, where))
    if record_checksum(record) != _checksum(key, record):
        raise CorruptRecordError(f'{where}: the checksum is wrong, the record is damaged')
    return {
        name: np.ndarray(shape, dtype, buffer=record, offset=offset)
        for name, dtype, shape, offset in layout
    }


def describe_record(record: bytes | bytearray | memoryview, source: str) -> dict[str, str]:
    """Name → type and shape in words, from the header alone."""
    return {name: f'{dtype.name} {shape}' for name, dtype, shape, _ in _walk_header(record, source)}


def record_checksum(record: bytes | bytearray | memoryview) -> int:
    """The checksum that a record states."""
    return _HEAD.unpack_from(record)[3]


def _array_header(name: str, array: np.ndarray, where: str) -> bytes:
    if not isinstance(name, str) or not _ARRAY_NAME.fullmatch(name):
        raise ValueError(f'{where}: {name!r} is not a name for an array')
    code = f'{array.dtype.kind}{array.dtype.itemsize}'
    if code not in _DTYPES:
        raise ValueError(f'{where}: {name} has type {array.dtype}, which cannot be stored')
    if not _all_finite(array):
        raise ValueError(f'{where}: {name} has inf or nan ({array.dtype})')
    return struct.pack(
        f'<B{len(name)}s2sB{array.ndim}I',
        len(name),
        name.encode('ascii'),
        code.encode('ascii'),
        array.ndim,
        *array.shape,
    )


def _all_finite(array: np.ndarray) -> bool:
    if array.dtype.kind != 'f':
        return True
    if array.dtype == np.float16 and array.dtype.isnative:
        # 30 times faster than numpy's isfinite on halves: an exponent of all ones.
        return not ((array.view(np.uint16) & 0x7C00) == 0x7C00).any()
    return bool(np.isfinite(array).all())


def _walk_header(
    record: bytes | bytearray | memoryview, where: str
) -> Iterator[tuple[str, np.dtype, tuple[int, ...], int]]:
    """Name, type, shape and offset of each array; trusts no number it reads."""
    try:
        magic, version, num_arrays, _ = _HEAD.unpack_from(record)
        if magic != _MAGIC or version != SCHEMA_VERSION:
            raise CorruptRecordError(
                f'{where}: not a record of version {SCHEMA_VERSION} (found {magic!r}, {version})'
            )
        position, headers = _HEAD.size, []
        for _ in range(num_arrays):
            header, position = _read_array_header(record, position)
            headers.append(header)
    except (struct.error, UnicodeDecodeError) as error:
        raise CorruptRecordError(f'{where}: the header is damaged') from error
    position = _aligned(position)
    for name, code, shape in headers:
        if code not in _DTYPES or not _ARRAY_NAME.fullmatch(name):
            raise CorruptRecordError(f'{where}: the header is damaged')
        dtype = np.dtype(f'<{code}')
        end = _aligned(position + prod(shape) * dtype.itemsize)
        if end > len(record):
            raise CorruptRecordError(f'{where}: {name} reaches beyond the record')
        yield name, dtype, shape, position
        position = end


def _read_array_header(
    record: bytes | bytearray | memoryview, position: int
) -> tuple[tuple[str, str, tuple[int, ...]], int]:
    (name_length,) = struct.unpack_from('<B', record, position)
    text = struct.Struct(f'<{name_length}s2sB')
    name, code, ndim = text.unpack_from(record, position + 1)
    position += 1 + text.size
    shape = struct.unpack_from(f'<{ndim}I', record, position)
    return (name.decode('ascii'), code.decode('ascii'), shape), position + 4 * ndim


def _checksum(key: bytes, record: bytes | bytearray) -> int:
    view = memoryview(record)
    return zlib.crc32(view[_CHECKSUM.stop :], zlib.crc32(view[: _CHECKSUM.start], zlib.crc32(key)))


def _aligned(position: int) -> int:
    return -(-position // _ALIGN) * _ALIGN
