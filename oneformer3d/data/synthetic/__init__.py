"""Synthetic rooms: procedural scenes scanned into posed RGB-D images and labelled clouds.

Enters: a seed. Leaves: ``generate_scene`` gives one room as arrays, ``generate_dataset`` a dataset
on disk in the ScanNet layout.

The way through the files: ``layout`` furnishes a room (``furniture`` builds, ``placement`` finds
positions), ``mesh`` joins the shapes, ``render`` walks a camera through them (``textures`` colours
what it sees), ``fuse`` thins the depth images to a cloud, ``scan`` is all of that for one seed,
``files`` and ``generate`` write a set.

Nothing is imported before a name is asked for, so that the constants in ``classes`` are cheap.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .generate import generate_dataset
    from .scan import RoomScan, generate_scene
    from .settings import RoomSettings, tiny_settings

__all__ = ['RoomScan', 'RoomSettings', 'generate_dataset', 'generate_scene', 'tiny_settings']

_HOME = {
    'RoomScan': 'scan',
    'RoomSettings': 'settings',
    'generate_dataset': 'generate',
    'generate_scene': 'scan',
    'tiny_settings': 'settings',
}


def __getattr__(name: str) -> Any:
    """Import a public name from its module when it is first used."""
    if name not in _HOME:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    from importlib import import_module

    return getattr(import_module(f'{__name__}.{_HOME[name]}'), name)
