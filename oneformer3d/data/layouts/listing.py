"""What lies in a folder: images by role, text files, in the order in which they were taken.

Enters: a folder. Leaves: its colour, depth and pose files by the frame that their names share.
Names are split into words; a word that says the role (``color``, ``depth``, ``pose``) is taken off,
and what is left names the frame. Numbers and time stamps are ordered as numbers.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

from .pixels import COLOR_SUFFIXES, DEPTH_SUFFIXES

COLOR_WORDS = ('color', 'colour', 'rgb', 'image', 'img')
DEPTH_WORDS = ('depth',)
POSE_WORDS = ('pose', 'extrinsic', 'extrinsics', 'cam2world')
COLOR_FOLDERS = ('color', 'colour', 'rgb', 'image', 'images', 'colors', 'imgs', 'rgbs')
DEPTH_FOLDERS = ('depth', 'depths', 'depth_images', 'depth_image')
POSE_FOLDERS = ('pose', 'poses', 'extrinsics', 'cam2world')
_FOLDERS = {'color': COLOR_FOLDERS, 'depth': DEPTH_FOLDERS, 'pose': POSE_FOLDERS}
_ROLE = {
    **dict.fromkeys(COLOR_WORDS, 'color'),
    **dict.fromkeys(DEPTH_WORDS, 'depth'),
    **dict.fromkeys(POSE_WORDS, 'pose'),
}
_WORD = re.compile(
    r'(?<![A-Za-z])(' + '|'.join(sorted(_ROLE, key=len, reverse=True)) + r')(?![A-Za-z])',
    re.IGNORECASE,
)
_NUMBER = re.compile(r'(\d+(?:\.\d+)?)')
_MAX_TEXT_BYTES = 64 << 20


@dataclass
class FilesByFrame:
    """Frame → file, of each role; ``where`` tells in words how they were found."""

    color: dict[str, Path] = field(default_factory=dict)
    depth: dict[str, Path] = field(default_factory=dict)
    pose: dict[str, Path] = field(default_factory=dict)
    where: str = ''


def files_by_frame(folder: Path) -> FilesByFrame:
    """Images and poses of a folder, or of the folders in it that are named for their role."""
    inside = files_in_folders(folder)
    return inside if inside.color or inside.depth else files_side_by_side(folder)


def files_in_folders(folder: Path) -> FilesByFrame:
    """Of folders ``color``, ``depth`` and ``pose``, whatever their exact names."""
    found, names = FilesByFrame(), []
    roles = (
        ('color', found.color, COLOR_SUFFIXES),
        ('depth', found.depth, DEPTH_SUFFIXES),
        ('pose', found.pose, ('.txt',)),
    )
    for role, files, suffixes in roles:
        for inner in folders_of_role(folder, role):
            paths = with_suffix(inner, suffixes)
            if paths:
                files.update((frame_name(path), path) for path in paths)
                names.append(f'{inner.name}/')
                break
    found.where = ' '.join(names)
    found.depth = _keyed_as(found.color, found.depth)
    return found


def _keyed_as(color: dict[str, Path], depth: dict[str, Path]) -> dict[str, Path]:
    """Depth by the names of colour, where each has time stamps of its own.

    Redwood's names are number and time, ``0000001-000000033369``: the number is common.
    """
    num_alike = len(color.keys() & depth.keys())
    if not color or not depth or num_alike > 0.5 * min(len(color), len(depth)):
        return depth
    by_number = [{_first_number(name): name for name in names} for names in (color, depth)]
    numbers = by_number[0].keys() & by_number[1].keys() - {None}
    if len(numbers) >= 0.5 * max(len(color), len(depth)):
        return {by_number[0][number]: depth[by_number[1][number]] for number in numbers}
    return depth


def _first_number(name: str) -> int | None:
    found = re.match(r'(\d+)[-_]', name)
    return int(found[1]) if found else None


def files_side_by_side(folder: Path) -> FilesByFrame:
    """Of one folder: by the role in their names, else ``N.jpg`` colour, ``N.png`` depth."""
    named, plain = FilesByFrame(where='files named for their role'), FilesByFrame()
    plain.where = 'files of one name'
    of_role = {'color': named.color, 'depth': named.depth, 'pose': named.pose}
    for path in with_suffix(folder, (*COLOR_SUFFIXES, *DEPTH_SUFFIXES, '.txt')):
        role, name = role_of(path), frame_name(path)
        if role is not None:
            if is_of_role(path, role):
                of_role[role][name] = path
        elif '.' in path.stem and not _NUMBER.fullmatch(path.stem):
            continue  # label pictures and cameras beside the frames
        elif path.suffix.lower() == '.txt':
            plain.pose[name] = path
        elif path.suffix.lower() in ('.jpg', '.jpeg'):
            plain.color[name] = path
        elif path.suffix.lower() in DEPTH_SUFFIXES:
            plain.depth[name] = path
    return named if named.color or named.depth else plain


def role_of(path: Path) -> str | None:
    """'color', 'depth' or 'pose' where the name says so; the last word counts."""
    words = _WORD.findall(_no_digits_at_words(path.stem))
    return _ROLE[words[-1].lower()] if words else None


def is_of_role(path: Path, role: str) -> bool:
    """Whether a file's ending goes with its role."""
    suffix = path.suffix.lower()
    allowed = {'color': COLOR_SUFFIXES, 'depth': DEPTH_SUFFIXES, 'pose': ('.txt',)}
    return suffix in allowed[role]


def frame_name(path: Path) -> str:
    """The name without its role and without ``frame``: what files of one frame share."""
    stem = _WORD.sub('', _no_digits_at_words(path.stem))
    stem = re.sub(r'^frame(?=[-_.]?\d)', '', stem, flags=re.IGNORECASE)
    return re.sub(r'[-_.]{2,}', '_', stem).strip('-_. ') or path.stem


def time_order(name: str) -> tuple:
    """Sort key: numbers in a name count as numbers, whatever their number of digits."""
    parts = _NUMBER.split(name)
    return tuple((0, Decimal(p), '') if i % 2 else (1, Decimal(0), p) for i, p in enumerate(parts))


def in_order(names: Iterable[str]) -> list[str]:
    """Names as they were taken."""
    return sorted(names, key=time_order)


def subfolders(folder: Path, names: Iterable[str]) -> list[Path]:
    """Folders in a folder that have one of the names in any case, in the order of the names."""
    inside = {path.name.lower(): path for path in folder.iterdir() if path.is_dir()}
    return [inside[name] for name in names if name in inside]


def folders_of_role(folder: Path, role: str) -> list[Path]:
    """Folders of a role: of its usual names first, then those whose name has its word."""
    usual = subfolders(folder, _FOLDERS[role])
    named = sorted(
        path
        for path in folder.iterdir()
        if path.is_dir() and path not in usual and role_of(path) == role
    )
    return usual + named


def with_suffix(folder: Path, suffixes: Iterable[str]) -> list[Path]:
    """Files of a folder with one of the endings in any case, in order; hidden ones are not."""
    suffixes = tuple(suffixes)
    paths = [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in suffixes and not path.name.startswith('.') and path.is_file()
    ]
    return sorted(paths, key=lambda path: time_order(path.name))


def text_files(folder: Path, suffixes: Iterable[str]) -> list[Path]:
    """Files with one of the endings that are not too long to be lists of frames."""
    return [
        path for path in with_suffix(folder, suffixes) if path.stat().st_size <= _MAX_TEXT_BYTES
    ]


def describe_contents(folder: Path, most: int = 8) -> str:
    """What lies in a folder, in words: its folders, and its files by their ending."""
    folders = sorted(p.name + '/' for p in folder.iterdir() if p.is_dir())
    counts: dict[str, list[str]] = {}
    for path in sorted(folder.iterdir()):
        if path.is_file():
            counts.setdefault(path.suffix.lower() or 'no ending', []).append(path.name)
    files = [
        names[0] if len(names) == 1 else f'{len(names)} {ending} ({names[0]}, …)'
        for ending, names in sorted(counts.items(), key=lambda item: -len(item[1]))
    ]
    parts = folders[:most] + files[:most]
    hidden = len(folders) + len(files) - len(parts)
    return (', '.join(parts) or 'nothing') + (f' and {hidden} more' if hidden else '')


def _no_digits_at_words(stem: str) -> str:
    """``depth000001`` → ``depth_000001``: a number ends a word."""
    return re.sub(r'(?<=[A-Za-z])(?=\d)', '_', stem)
