"""Text files with a point per line: ``.txt .xyz .pts .csv .asc``.

Enters: a file with or without a header, a line with the count, comments; separated by blanks,
commas, semicolons or tabs. Leaves: a ``CloudFile``. N points, C columns.
"""

import re
import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from oneformer3d.files.errors import one_line

from .colors import look_like_colors
from .record import CloudFile, find_colors, find_columns

SUFFIXES = ('.txt', '.xyz', '.pts', '.csv', '.asc')
_COMMENT = ('#', '//', '%', ';')
_MAX_HEADER_LINES = 32
_HEADER_BYTES = 1 << 16
_BOM = b'\xef\xbb\xbf'


def read_text_cloud(path: Path) -> CloudFile:
    """Read a table of points.

    Columns are those that a header names. Without one they are x y z, then what looks like it:
    colours, an intensity before or after them, normals, labels.

    Raises:
        ValueError: no table of numbers with three columns or more; names the file.
    """
    content = path.read_bytes().removeprefix(_BOM)
    head = content[:_HEADER_BYTES].splitlines(keepends=True)[:_MAX_HEADER_LINES]
    start, names = _find_table(head)
    if start is None:
        raise ValueError(f'{path}: none of its first lines holds three numbers')

    first_line = head[start]
    delimiter = next((mark for mark in (';', ',') if mark.encode() in first_line), None)
    body = memoryview(content)[sum(map(len, head[:start])) :]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', UserWarning)  # of empty lines at the end
            table = np.loadtxt(
                BytesIO(body), delimiter=delimiter, ndmin=2, comments=None, encoding='latin-1'
            )  # (N, C)
    except ValueError as error:
        raise ValueError(f'{path}: not a table of numbers ({one_line(error)})') from error

    if names is not None and len(names) == table.shape[1]:
        return _by_name(path, table, names)
    return _by_content(path, table)


def _find_table(lines: list[bytes]) -> tuple[int | None, tuple[str, ...] | None]:
    """Where the numbers begin, and the words of the line before them."""
    names = None
    for row, line in enumerate(lines):
        words = _words(line)
        numbers = [word for word in words if _is_number(word)]
        if len(words) >= 3 and len(numbers) == len(words):
            return row, names
        if words and not numbers:
            names = tuple(words)
    return None, None


def _words(line: bytes) -> list[str]:
    text = line.decode('latin-1').strip()
    for mark in _COMMENT:
        text = text.removeprefix(mark)
    return [word.strip('"\'') for word in re.split(r'[\s,;]+', text.strip()) if word]


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _by_name(path: Path, table: NDArray, names: tuple[str, ...]) -> CloudFile:
    xyz = find_columns(names, ('x', 'y', 'z'))
    if xyz is None:
        return _by_content(path, table)
    column = {name: table[:, index] for index, name in enumerate(names)}
    colors = find_colors(names)
    return CloudFile(
        np.stack([column[name] for name in xyz], 1),
        None if colors is None else np.stack([column[name] for name in colors], 1),
        f'a table with the columns {" ".join(names)}',
    )


def _by_content(path: Path, table: NDArray) -> CloudFile:
    num_columns = table.shape[1]
    # x y z r g b, or with an intensity before the colours as in .pts
    order = (4, 3) if path.suffix.lower() == '.pts' else (3, 4)
    for first in order:
        colors = table[:, first : first + 3]
        if colors.shape[1] == 3 and look_like_colors(colors) and colors.max() > 1:
            between = '' if first == 3 else ' i'
            return CloudFile(table[:, :3], colors, f'a table of x y z{between} r g b')

    ignored = num_columns - 3
    return CloudFile(
        table[:, :3],
        None,
        f'a table of {num_columns} columns',
        (f'{ignored} columns after x y z are no colours and were not read',) if ignored else (),
    )
