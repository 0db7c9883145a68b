"""The headerless files of a scene in a data root, read strictly: points and one label per point.

Enters: the path of a ``.bin`` file. Leaves: points (N, 6) float32, or labels (N,) int64. What is
wrong with a file is said with its name; files of other origin are read by ``readers``.
"""

from pathlib import Path

import numpy as np

from .clouds.scale import MAX_COORDINATE

NUM_FEATURES = 6  # xyz, rgb


def read_points(path: str | Path) -> np.ndarray:
    """Read a scene's points.

    Args:
        path: float32 file of N×6 values: xyz in metres, rgb 0–255.

    Returns:
        (N, 6) float32, N ≥ 1.

    Raises:
        FileNotFoundError: no such file.
        ValueError: empty, not N×6 float32, not finite, coordinates beyond 8192 m (float64
            read as float32 mostly ends here), or colours outside 0–255.
    """
    content = _read_bytes(path)
    row = NUM_FEATURES * 4
    if not content or len(content) % row:
        raise ValueError(
            f'{path}: expected N×{NUM_FEATURES} float32 values ({row} bytes per point, N ≥ 1), '
            f'got {len(content)} bytes'
        )
    points = np.frombuffer(content, dtype='<f4').reshape(-1, NUM_FEATURES).astype(np.float32)

    finite = np.isfinite(points).all(axis=1)
    if not finite.all():
        raise ValueError(
            f'{path}: {(~finite).sum()} of {len(points)} points are not finite, '
            f'the first is point {np.argmin(finite)}'
        )
    largest = np.abs(points[:, :3]).max()
    if largest > MAX_COORDINATE:
        raise ValueError(
            f'{path}: coordinates reach {largest:.4g}, expected float32 metres within '
            f'{MAX_COORDINATE:g} of the origin'
        )
    low, high = points[:, 3:].min(), points[:, 3:].max()
    if low < 0 or high > 255:
        raise ValueError(f'{path}: colours range over {low:.4g}…{high:.4g}, expected 0…255')
    return points


def read_labels(path: str | Path, num_points: int) -> np.ndarray:
    """Read one int64 label per point.

    Args:
        path: int64 file.
        num_points: how many points the scene has.

    Returns:
        (num_points,) int64.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another number of labels, or labels of another width.
    """
    content = _read_bytes(path)
    if len(content) == 8 * num_points:
        return np.frombuffer(content, dtype='<i8').astype(np.int64)
    for width, name in ((4, 'int32'), (2, 'int16'), (1, 'uint8')):
        if len(content) == width * num_points:
            raise ValueError(
                f'{path}: expected int64 labels (8 bytes each), '
                f'this looks like {name} ({len(content)} bytes for {num_points} points)'
            )
    raise ValueError(
        f'{path}: holds {len(content) / 8:g} int64 labels, but the scene has {num_points} points'
    )


def _read_bytes(path: str | Path) -> bytes:
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such file')
    return path.read_bytes()
