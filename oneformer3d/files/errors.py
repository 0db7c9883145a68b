"""Another library's error as part of a message of one line.

Enters: an exception. Leaves: its text without line breaks.
"""

_MAX_LENGTH = 300


def one_line(error: Exception) -> str:
    """The error's text in one line of at most 300 characters, its type where it has no text.

    >>> one_line(ValueError('two\\n  lines'))
    'two lines'
    >>> one_line(EOFError())
    'EOFError'
    """
    return ' '.join(str(error).split())[:_MAX_LENGTH] or type(error).__name__
