"""What every frame voted, on disk, so that it can be taken back.

Enters: ``FrameInstances``. Leaves: the same, by their number. A file that only grows: one record of
zlib over the arrays of a frame, voxels as differences of their sorted keys (about two bytes each).
In memory stay 64 bytes per frame: where its record lies and the box of its voxels.
"""

import json
import os
import tempfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from .records import CameraPoints, FrameInstances
from .voxels import Keys, pack, unpack

_HEAD = 8  # bytes: length of the header of a record


class Ledger:
    """Frames on disk.

    Args:
        voxel_size: metres, of the world voxels that frames with a source are put into.
        path: the file, made if missing; None takes one that vanishes with the object.

    Attributes:
        offsets: (F + 1,) where records begin, and where the last one ends.
        poses: corrected poses by number of the frame.
    """

    def __init__(self, voxel_size: float, path: str | Path | None = None) -> None:
        self.voxel_size = voxel_size
        self._file = _open(path)
        self.offsets = Growing(np.int64)
        self.boxes = Growing(np.int64, 6)
        self.offsets.append(0)
        self.poses: dict[int, NDArray[np.float64]] = {}

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def num_bytes(self) -> int:
        """On disk."""
        return int(self.offsets.values[-1])

    def append(self, frame: FrameInstances) -> None:
        """Add a frame."""
        record = _encode(frame)
        self._file.seek(self.num_bytes)
        self._file.write(record)
        self.offsets.append(self.num_bytes + len(record))
        self.boxes.append(_box(frame))

    def read(self, number: int) -> FrameInstances:
        """A frame at its present pose."""
        begin, end = self.offsets.values[number : number + 2]
        self._file.seek(int(begin))
        frame = _decode(self._file.read(int(end - begin)))
        if frame.source is None:
            return frame
        pose = self.poses.get(number, frame.source.world_from_cam)
        return frame.moved(pose, self.voxel_size)

    def move(self, number: int, world_from_cam: NDArray) -> FrameInstances:
        """Correct the pose of a frame; the frame at its new pose.

        Raises:
            ValueError: the frame was given without its points in the camera.
        """
        frame = self.read(number).moved(world_from_cam, self.voxel_size)
        self.poses[number] = np.asarray(world_from_cam, np.float64)
        self.boxes.values[number] = _box(frame)
        return frame

    def touching(self, keys: Keys) -> NDArray[np.int64]:
        """Numbers of frames whose box meets the box of voxels; ascending."""
        if len(keys) == 0 or len(self) == 0:
            return np.zeros(0, np.int64)
        voxels = unpack(keys)
        low, high = self.boxes.values[:, :3], self.boxes.values[:, 3:]
        meets = (low <= voxels.max(axis=0)) & (high >= voxels.min(axis=0))
        return np.flatnonzero(meets.all(axis=1))

    def flush(self) -> None:
        """Bring everything to the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def truncate(self, num_frames: int) -> None:
        """Forget the frames after the first ``num_frames``."""
        self.offsets.truncate(num_frames + 1)
        self.boxes.truncate(num_frames)
        self._file.truncate(self.num_bytes)

    def load_index(self, offsets: NDArray, boxes: NDArray, poses: dict[int, NDArray]) -> None:
        """Take the index of a snapshot; what was written after it is cut off.

        Raises:
            ValueError: the file is shorter than the snapshot says.
        """
        self._file.seek(0, os.SEEK_END)
        if self._file.tell() < int(offsets[-1]):
            raise ValueError(
                f'the ledger has {self._file.tell()} bytes, the snapshot needs {int(offsets[-1])}'
            )
        self.offsets = Growing(np.int64, values=offsets)
        self.boxes = Growing(np.int64, 6, values=boxes)
        self.poses = dict(poses)
        self._file.truncate(self.num_bytes)


class Growing:
    """An array that grows at its end; its memory doubles."""

    def __init__(self, dtype: type, width: int = 0, values: NDArray | None = None) -> None:
        shape = (16, width) if width else (16,)
        self._memory = np.zeros(shape, dtype) if values is None else values.copy()
        self._length = 0 if values is None else len(values)

    def __len__(self) -> int:
        return self._length

    @property
    def values(self) -> NDArray:
        """What is there, a view."""
        return self._memory[: self._length]

    def append(self, value: NDArray | int) -> None:
        """One more."""
        if self._length == len(self._memory):
            size = max(16, 2 * len(self._memory))
            self._memory = np.resize(self._memory, (size, *self._memory.shape[1:]))
        self._memory[self._length] = value
        self._length += 1

    def truncate(self, length: int) -> None:
        """Keep the first ones."""
        self._length = length


def _open(path: str | Path | None) -> IO[bytes]:
    """The file of a ledger, which stays open as long as the ledger lives."""
    if path is None:
        return tempfile.TemporaryFile(prefix='oneformer3d_ledger_')
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).touch()
    return Path(path).open('r+b')


def _box(frame: FrameInstances) -> NDArray[np.int64]:
    """Lowest and highest voxel (6,) of what a frame saw and looked through; an empty one is far."""
    voxels = np.concatenate([frame.visible, frame.free, *frame.voxels])
    if len(voxels) == 0:
        return np.full(6, np.iinfo(np.int64).max)
    return np.concatenate([voxels.min(axis=0), voxels.max(axis=0)])


def _encode(frame: FrameInstances) -> bytes:
    """A frame as header and arrays."""
    arrays: dict[str, np.ndarray] = {
        'scores': np.asarray(frame.scores, np.float32),
        'class_logits': np.asarray(frame.class_logits, np.float32),
        'features': np.asarray(frame.features, np.float32),
    }
    source = frame.source
    if source is None:
        sets = {'visible': [frame.visible], 'free': [frame.free], 'voxels': list(frame.voxels)}
        for name, groups in sets.items():
            keys = [np.unique(pack(group)) for group in groups]
            arrays[f'{name}_lengths'] = np.array([len(k) for k in keys], np.int64)
            arrays[name] = np.diff(np.concatenate([np.zeros(0, np.int64), *keys]), prepend=0)
    else:
        arrays |= {'points': source.points, 'free_points': source.free}
        arrays['pose'] = source.world_from_cam
        arrays['lengths'] = np.array([len(rows) for rows in source.members], np.int64)
        members = np.concatenate([np.zeros(0, np.int64), *source.members])
        arrays['members'] = members.astype(np.int32)

    shapes = {name: [value.dtype.str, value.shape] for name, value in arrays.items()}
    head = json.dumps({'index': frame.index, 'arrays': shapes}).encode()
    body = b''.join(np.ascontiguousarray(value).tobytes() for value in arrays.values())
    return len(head).to_bytes(_HEAD, 'little') + head + zlib.compress(body, 1)


def _decode(record: bytes) -> FrameInstances:
    """The frame of a record; one with a source is put into its voxels by ``moved``."""
    length = int.from_bytes(record[:_HEAD], 'little')
    head = json.loads(record[_HEAD : _HEAD + length])
    body, at = zlib.decompress(record[_HEAD + length :]), 0
    arrays = {}
    for name, (dtype, shape) in head['arrays'].items():
        count = int(np.prod(shape, dtype=np.int64))
        arrays[name] = np.frombuffer(body, dtype, count, at).reshape(shape)
        at += arrays[name].nbytes

    labels = (arrays['scores'], arrays['class_logits'], arrays['features'])
    if 'points' not in arrays:
        visible, free, voxels = (_groups(arrays, name) for name in ('visible', 'free', 'voxels'))
        return FrameInstances(tuple(voxels), *labels, visible[0], free[0], head['index'])

    # which voxels these are is told by the voxel size of the reader
    ends = np.cumsum(arrays['lengths'])[:-1]
    members = np.split(arrays['members'].astype(np.int64), ends) if len(arrays['lengths']) else []
    source = CameraPoints(arrays['points'], tuple(members), arrays['pose'], arrays['free_points'])
    nothing = np.zeros((0, 3), np.int64)
    unplaced = (nothing,) * len(members)
    return FrameInstances(unplaced, *labels, nothing, nothing, index=head['index'], source=source)


def _groups(arrays: dict[str, NDArray], name: str) -> list[NDArray[np.int64]]:
    keys = np.cumsum(arrays[name])
    ends = np.cumsum(arrays[f'{name}_lengths'])[:-1]
    parts = np.split(keys, ends) if len(arrays[f'{name}_lengths']) else []
    return [unpack(part) for part in parts]
