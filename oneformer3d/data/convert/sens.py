"""ScanNet's ``.sens`` recordings: cameras and frames, read one frame at a time.

Enters: a ``.sens`` file, version 4. Leaves: its cameras, and frames with pose, JPEG bytes, depth.

The file is a header (four 4×4 matrices, compression, sizes, depth units per metre) and then, per
frame, camera_to_world, two time stamps, two byte counts, compressed colour, compressed depth.
Little-endian throughout.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

_VERSION = 4
_JPEG = 2  # of 0 raw, 1 png, 2 jpeg
_DEPTH_RAW, _DEPTH_ZLIB = 0, 1
_MAX_NAME = 4096
_MAX_SIDE = 16384


@dataclass(frozen=True)
class SensHeader:
    """Cameras (3, 3) and sizes (H, W) of a recording, and where its frames begin."""

    color_intrinsics: NDArray[np.float64]
    depth_intrinsics: NDArray[np.float64]
    image_size: tuple[int, int]
    depth_size: tuple[int, int]
    depth_compression: int
    depth_units_per_metre: float
    num_frames: int
    first_frame: int


@dataclass(frozen=True)
class SensFrame:
    """One frame: its number, pose (4, 4), colour as JPEG and depth (H, W) uint16 millimetres."""

    index: int
    world_from_cam: NDArray[np.float64]
    jpeg: bytes
    depth: NDArray[np.uint16]


def read_sens(path: str | Path, frame_step: int = 1) -> Iterator[SensFrame]:
    """Every ``frame_step``-th frame of a recording; the others are skipped unread.

    Raises:
        ValueError: another version or compression, or a file cut short; names it and the frame.
    """
    if frame_step < 1:
        raise ValueError(f'frame_step: expected 1 or more, got {frame_step}')
    path = Path(path)
    header = read_sens_header(path)
    with path.open('rb') as file:
        file.seek(header.first_frame)
        for index in range(header.num_frames):
            where = f'{path}: frame {index}'
            pose = np.frombuffer(_read(file, 64, where), '<f4').reshape(4, 4)
            _, _, color_bytes, depth_bytes = struct.unpack('<4Q', _read(file, 32, where))
            if index % frame_step:
                file.seek(color_bytes + depth_bytes, 1)
                continue

            jpeg = _read(file, color_bytes, where)
            depth = _decode_depth(_read(file, depth_bytes, where), header, where)
            yield SensFrame(index, pose.astype(np.float64), jpeg, depth)


def read_sens_header(path: str | Path) -> SensHeader:
    """The header alone. Raises ValueError as ``read_sens`` does."""
    path = Path(path)
    with path.open('rb') as file:
        (version,) = struct.unpack('<I', _read(file, 4, str(path)))
        if version != _VERSION:
            raise ValueError(f'{path}: expected a .sens file of version {_VERSION}, got {version}')
        (name_bytes,) = struct.unpack('<Q', _read(file, 8, str(path)))
        if name_bytes > _MAX_NAME:
            raise ValueError(f'{path}: not a .sens file (its sensor name has {name_bytes} bytes)')
        _read(file, name_bytes, str(path))

        # colour K, colour extrinsics, depth K, depth extrinsics
        matrices = np.frombuffer(_read(file, 4 * 64, str(path)), '<f4').reshape(4, 4, 4)
        fields = struct.unpack('<2i4IfQ', _read(file, 36, str(path)))
        first_frame = file.tell()

    color_compression, depth_compression, *sides, units_per_metre, num_frames = fields
    if color_compression != _JPEG or depth_compression not in (_DEPTH_RAW, _DEPTH_ZLIB):
        raise ValueError(
            f'{path}: expected JPEG colour ({_JPEG}) and raw or zlib depth '
            f'({_DEPTH_RAW}, {_DEPTH_ZLIB}), got {color_compression} and {depth_compression}'
        )
    if not all(0 < side <= _MAX_SIDE for side in sides) or not units_per_metre > 0:
        raise ValueError(f'{path}: impossible image sizes {sides} or depth unit {units_per_metre}')

    color_width, color_height, depth_width, depth_height = sides
    return SensHeader(
        color_intrinsics=matrices[0, :3, :3].astype(np.float64),
        depth_intrinsics=matrices[2, :3, :3].astype(np.float64),
        image_size=(color_height, color_width),
        depth_size=(depth_height, depth_width),
        depth_compression=depth_compression,
        depth_units_per_metre=units_per_metre,
        num_frames=num_frames,
        first_frame=first_frame,
    )


def _decode_depth(content: bytes, header: SensHeader, where: str) -> NDArray[np.uint16]:
    num_bytes = 2 * header.depth_size[0] * header.depth_size[1]
    if header.depth_compression == _DEPTH_ZLIB:
        try:
            content = zlib.decompressobj().decompress(content, num_bytes)
        except zlib.error as error:
            raise ValueError(f'{where}: depth cannot be decompressed ({error})') from error
    if len(content) != num_bytes:
        raise ValueError(f'{where}: depth has {len(content)} bytes, expected {num_bytes}')
    depth = np.frombuffer(content, '<u2').reshape(header.depth_size)
    if header.depth_units_per_metre == 1000:
        return depth
    millimetres = np.round(depth * (1000 / header.depth_units_per_metre))
    return np.minimum(millimetres, 65535).astype(np.uint16)


def _read(file: BinaryIO, num_bytes: int, where: str) -> bytes:
    content = file.read(num_bytes)
    if len(content) != num_bytes:
        raise ValueError(f'{where}: the file ends after {len(content)} of {num_bytes} bytes')
    return content
