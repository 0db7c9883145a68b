"""Point Cloud Library files (``.pcd``) → coordinates and colours.

Enters: a PCD file, version 0.6 or 0.7, DATA ascii, binary or binary_compressed. Leaves: xyz (N, 3)
as stored and rgb (N, 3) or None. N points; a packed ``rgb``/``rgba`` field is the 32-bit word
0xAARRGGBB, stored as an unsigned integer or as a float of the same bits.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

_KINDS = {'F': 'f', 'U': 'u', 'I': 'i'}
_SIZES = {'F': (4, 8), 'U': (1, 2, 4, 8), 'I': (1, 2, 4, 8)}
_MAX_HEADER_LINES = 64
# as PCL packs them in one field, or as PDAL and others write them in three
_COLOR_FIELDS = (('red', 'green', 'blue'), ('r', 'g', 'b'))


def read_pcd(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Read a PCD file.

    Args:
        path: the file.

    Returns:
        xyz (N, 3) in its stored dtype; rgb (N, 3), uint8 from a packed field and as stored from
        three of them, or None without a colour field.

    Raises:
        ValueError: Broken header, cut-short data, or no x, y, z; names the file.
    """
    content = path.read_bytes()
    try:
        header, start = _parse_header(content)
        table = _DECODERS[header.data](header, content[start:])
    except ValueError as error:
        raise ValueError(f'{path}: not a readable PCD file ({error})') from error

    by_name = {name.lower(): name for name in header.names}
    missing = [name for name in 'xyz' if name not in by_name]
    if missing:
        raise ValueError(f'{path}: the PCD file has no field {", ".join(missing)}')

    xyz = np.stack([table[by_name[name]] for name in 'xyz'], axis=1)
    packed = next((by_name[name] for name in ('rgb', 'rgba') if name in by_name), None)
    if packed is not None:
        return xyz, _unpack_rgb(table[packed], path)
    colors = next((c for c in _COLOR_FIELDS if set(c) <= set(by_name)), None)
    if colors is None:
        return xyz, None
    return xyz, np.stack([table[by_name[name]] for name in colors], axis=1)


@dataclass(frozen=True)
class _Header:
    names: tuple[str, ...]
    row: np.dtype
    num_points: int
    data: str


def _parse_header(content: bytes) -> tuple[_Header, int]:
    """Header and the offset at which the data begins."""
    entries: dict[str, list[str]] = {}
    start = 0
    for _ in range(_MAX_HEADER_LINES):
        end = content.find(b'\n', start)
        if end < 0:
            break
        line = content[start:end].decode('ascii', errors='replace').strip()
        start = end + 1
        if not line or line.startswith('#'):
            continue

        key, *values = line.split()
        entries[key.upper()] = values
        if key.upper() == 'DATA':
            return _check_header(entries), start
    raise ValueError('no DATA line in its header')


def _check_header(entries: dict[str, list[str]]) -> _Header:
    for key in ('FIELDS', 'SIZE', 'TYPE'):
        if not entries.get(key):
            raise ValueError(f'no {key} line in its header')
    fields, kinds = entries['FIELDS'], [kind.upper() for kind in entries['TYPE']]
    sizes = [_integer(size, 'SIZE') for size in entries['SIZE']]
    counts = [_integer(count, 'COUNT') for count in entries.get('COUNT', ['1'] * len(fields))]
    if not len(fields) == len(sizes) == len(kinds) == len(counts):
        raise ValueError('FIELDS, SIZE, TYPE and COUNT differ in length')

    columns = []
    for index, (name, size, kind, count) in enumerate(zip(fields, sizes, kinds, counts)):
        if size not in _SIZES.get(kind, ()) or not 1 <= count <= 4096:
            raise ValueError(f'field {name!r} has SIZE {size} TYPE {kind} COUNT {count}')
        # PCL pads rows with fields named "_"; names must differ to make a table.
        name = f'_{index}' if name == '_' else name
        scalar = f'<{_KINDS[kind]}{size}'
        columns.append((name, scalar) if count == 1 else (name, scalar, (count,)))
    names = [column[0] for column in columns]
    if len(set(names)) != len(names):
        raise ValueError('two fields have the same name')

    data = (entries.get('DATA') or [''])[0].lower()
    if data not in _DECODERS:
        raise ValueError(f'DATA {data!r}, expected one of {", ".join(_DECODERS)}')

    if entries.get('POINTS'):
        num_points = _integer(entries['POINTS'][0], 'POINTS')
    elif entries.get('WIDTH') and entries.get('HEIGHT'):
        num_points = _integer(entries['WIDTH'][0], 'WIDTH')
        num_points *= _integer(entries['HEIGHT'][0], 'HEIGHT')
    else:
        raise ValueError('no POINTS line in its header')
    return _Header(tuple(names), np.dtype(columns), num_points, data)


def _integer(text: str, key: str) -> int:
    if not text.isdecimal():
        raise ValueError(f'{key} {text!r} is no number')
    return int(text)


def _decode_ascii(header: _Header, body: bytes) -> np.ndarray:
    lines = body.decode('ascii', errors='replace').splitlines()
    lines = [line for line in lines if line.strip()]
    if len(lines) < header.num_points:
        raise ValueError(f'{header.num_points} points announced, {len(lines)} lines found')
    # loadtxt reads any table of numbers, nan included, and names the line at fault.
    return np.loadtxt(lines[: header.num_points], dtype=header.row, ndmin=1)


def _decode_binary(header: _Header, body: bytes) -> np.ndarray:
    expected = header.num_points * header.row.itemsize
    if len(body) < expected:
        raise ValueError(f'{expected} bytes of points announced, {len(body)} found')
    return np.frombuffer(body[:expected], dtype=header.row)


def _decode_compressed(header: _Header, body: bytes) -> np.ndarray:
    """LZF-packed, and field after field instead of point after point."""
    if len(body) < 8:
        raise ValueError('cut short before its compressed data')
    num_packed, num_bytes = (int(value) for value in np.frombuffer(body[:8], dtype='<u4'))
    expected = header.num_points * header.row.itemsize
    if num_bytes != expected:
        raise ValueError(f'{expected} bytes of points expected, {num_bytes} announced')
    if len(body) < 8 + num_packed:
        raise ValueError(f'{num_packed} compressed bytes announced, {len(body) - 8} found')

    flat = lzf_decompress(body[8 : 8 + num_packed], num_bytes)
    table = np.empty(header.num_points, dtype=header.row)
    offset = 0
    for name in header.names:
        column = table.dtype[name]
        size = column.itemsize * header.num_points
        table[name] = np.frombuffer(flat[offset : offset + size], dtype=column)
        offset += size
    return table


def lzf_decompress(packed: bytes, num_bytes: int) -> bytes:
    """Undo LZF compression (the format of Marc Lehmann's liblzf).

    A control byte below 32 copies that many bytes plus one; a larger one repeats
    ``(c >> 5) + 2`` bytes (a length of 9 is extended by the next byte) that begin
    ``((c & 31) << 8 | next) + 1`` bytes back.

    Raises:
        ValueError: The stream is broken or does not give ``num_bytes`` bytes.
    """
    out = bytearray()
    position, end = 0, len(packed)
    try:
        while position < end:
            control = packed[position]
            position += 1

            if control < 32:
                literal = packed[position : position + control + 1]
                if len(literal) != control + 1:
                    raise ValueError('its compressed data are cut short')
                out += literal
                position += control + 1
            else:
                # how many bytes, and how far back they begin
                length = control >> 5
                if length == 7:
                    length += packed[position]
                    position += 1
                distance = ((control & 31) << 8 | packed[position]) + 1
                position += 1
                length += 2

                begin = len(out) - distance
                if begin < 0:
                    raise ValueError('its compressed data are broken')

                if distance >= length:
                    out += out[begin : begin + length]
                else:  # the copy feeds on itself: a repeated pattern
                    pattern = bytes(out[begin:])
                    out += (pattern * (length // distance + 1))[:length]

            if len(out) > num_bytes:
                raise ValueError('its compressed data are longer than announced')
    except IndexError:
        raise ValueError('its compressed data are cut short') from None

    if len(out) != num_bytes:
        raise ValueError(f'{num_bytes} uncompressed bytes expected, {len(out)} found')
    return bytes(out)


def _unpack_rgb(packed: np.ndarray, path: Path) -> np.ndarray:
    if packed.dtype.itemsize != 4 or packed.ndim != 1:
        raise ValueError(f'{path}: its packed rgb field is no 32-bit word')
    word = np.ascontiguousarray(packed).view(np.uint32)
    return np.stack([(word >> shift & 255).astype(np.uint8) for shift in (16, 8, 0)], axis=1)


_DECODERS = {
    'ascii': _decode_ascii,
    'binary': _decode_binary,
    'binary_compressed': _decode_compressed,
}
