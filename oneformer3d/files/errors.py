"""Another library's error as part of a message of one line.

Enters: an exception, or what may raise one. Leaves: its text without line breaks, or a ValueError
that names the file.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MAX_LENGTH = 300


def one_line(error: BaseException) -> str:
    """The error's text in one line of at most 300 characters, its type where it has no text.

    >>> one_line(ValueError('two\\n  lines'))
    'two lines'
    >>> one_line(EOFError())
    'EOFError'
    """
    return ' '.join(str(error).split())[:_MAX_LENGTH] or type(error).__name__


@contextmanager
def foreign_parser(path: str | Path, what: str) -> Iterator[None]:
    """Turn whatever another library raises while it reads a file into one ValueError.

    Damaged files make parsers raise anything: a list of what they were seen to raise was never
    complete. So this one place catches all of it, around nothing but the library's own call. A file
    that is not there stays a FileNotFoundError.

    >>> with foreign_parser('a.npy', 'array'):
    ...     raise KeyError('magic')
    Traceback (most recent call last):
    ValueError: a.npy: not a readable array ('magic')
    """
    try:
        yield
    except BaseException as error:
        # what fails inside Rust arrives as an exception of its own, which is no Exception
        if not isinstance(error, Exception) and type(error).__module__ != 'pyo3_runtime':
            raise
        if isinstance(error, FileNotFoundError) and not Path(path).exists():
            raise
        raise ValueError(f'{path}: not a readable {what} ({one_line(error)})') from error
