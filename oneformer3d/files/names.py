"""Names and paths from outside, which may not leave the folder they belong to.

Enters: text from infos, folders or the command line. Leaves: the same text, checked.
"""

import os
import re
from pathlib import Path
from typing import Any

_SCENE_NAME = re.compile(r'[A-Za-z0-9._-]{1,128}')


def validate_scene_name(name: str) -> str:
    """Return the name if it is safe as a file or folder name.

    Raises:
        ValueError: anything but 1–128 of ``A-Z a-z 0-9 . _ -``, or containing ``..``.
    """
    if not isinstance(name, str) or not _SCENE_NAME.fullmatch(name) or '..' in name or name == '.':
        raise ValueError(
            f'{short_repr(name)}: not a scene name; '
            'expected 1 to 128 of A-Z a-z 0-9 . _ - without ".."'
        )
    return name


def safe_scene_name(name: str) -> str:
    """A scene name of any text: what is not allowed becomes ``_``.

    Example:
        >>> safe_scene_name('Küche 2..b'), safe_scene_name('scene0000_00')
        ('K_che_2_b', 'scene0000_00')
    """
    safe = re.sub(r'[^A-Za-z0-9._-]', '_', name)
    safe = re.sub(r'\.{2,}', '_', safe)[:128]
    return safe if safe.strip('._') else f'scene{safe.strip(".")}'


def resolve_in_root(root: str | os.PathLike, rel: str | os.PathLike) -> Path:
    """Join a path from outside to its root and make sure that it stays there.

    The root itself may be a link (it is the user's own choice); what ``rel`` names may not
    lead out of it, neither by ``..`` nor by a link.

    Args:
        root: a folder.
        rel: a relative path with ``/`` separators.

    Returns:
        The absolute path; it need not exist.

    Raises:
        ValueError: absolute or escaping path, naming both.
    """
    resolved_root = Path(root).resolve()
    validate_relative_path(os.fspath(rel))
    path = resolved_root / rel
    if not path.resolve().is_relative_to(resolved_root):
        raise ValueError(f'{short_repr(os.fspath(rel))}: leads out of its folder {root}')
    return path


def validate_relative_path(rel: str) -> str:
    """Return the path if it is relative, non-empty and free of ``..``, else raise ValueError."""
    if not isinstance(rel, str) or not rel or '\0' in rel or '\\' in rel:
        raise ValueError(f'{short_repr(rel)}: not a relative path with "/" separators')
    if rel[0] == '/' or rel[1:2] == ':' or '..' in rel.split('/'):
        raise ValueError(f'{short_repr(rel)}: not a relative path inside its folder')
    return rel


def short_repr(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + '...'
