"""Where configs, tools and requirements of this package lie on this machine.

Enters: nothing, or a path as a user wrote it. Leaves: a folder, or the path of a file that is
there. Beside the package in a checkout, in its folder ``.mim`` where a wheel is installed (the
place where OpenMMLab's mim looks).
"""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]


def shipped_folder() -> Path:
    """The folder that holds ``configs``, ``tools`` and ``requirements``."""
    installed = PACKAGE / '.mim'
    return installed if installed.is_dir() else PACKAGE.parent


def find_config(path: str | Path) -> Path:
    """A config as a user names it: a file, or ``configs/…`` of the package from any folder.

    Raises:
        FileNotFoundError: if it is neither.

    Example:
        >>> find_config('configs/oneformer3d_scannet.py').name
        'oneformer3d_scannet.py'
    """
    given = Path(path)
    if given.is_file():
        return given

    shipped = shipped_folder() / given
    if given.parts[:1] == ('configs',) and '..' not in given.parts and shipped.is_file():
        return shipped
    raise FileNotFoundError(f'{path}: no such config file')
