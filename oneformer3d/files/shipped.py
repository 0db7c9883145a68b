"""Where configs, tools, weights and requirements of this package lie on this machine.

Enters: nothing, or a path as a user wrote it. Leaves: a folder, or the path of a file that is
there. Beside the package in a checkout, in its folder ``.mim`` where a wheel is installed (the
place where OpenMMLab's mim looks).
"""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
# the model that is used where nobody names another
CONFIG = 'configs/rooms_points.py'
CHECKPOINT = 'weights/rooms_points.safetensors'


def shipped_folder() -> Path:
    """The folder that holds ``configs``, ``tools``, ``weights`` and ``requirements``."""
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
    return _find(path, 'configs', 'config')


def find_checkpoint(path: str | Path) -> Path:
    """Weights as a user names them: a file, or ``weights/…`` of the package from any folder.

    Raises:
        FileNotFoundError: if it is neither.

    Example:
        >>> find_checkpoint('weights/rooms_points.safetensors').name
        'rooms_points.safetensors'
    """
    return _find(path, 'weights', 'checkpoint')


def _find(path: str | Path, folder: str, what: str) -> Path:
    given = Path(path)
    if given.is_file():
        return given

    shipped = shipped_folder() / given
    if given.parts[:1] == (folder,) and '..' not in given.parts and shipped.is_file():
        return shipped
    raise FileNotFoundError(f'{path}: no such {what} file')
