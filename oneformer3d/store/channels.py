"""How many channels the stored maps have, before any of them is read.

Enters: the folder of a feature store, which need not be there yet. Leaves: C.
"""

import os
from contextlib import suppress

from mmengine.logging import print_log

from .manifest import read_manifest


def stored_channels(clip_store: str | os.PathLike | None, clip_channels: int | None) -> int:
    """C as the header of a store says, or as given where there is no store yet.

    A header that says otherwise than ``clip_channels`` wins, and the log says so.

    Raises:
        ValueError: neither is there.

    Example:
        >>> from oneformer3d.store.examples import example_store
        >>> stored_channels(example_store(), None), stored_channels('/not/there/yet', 192)
        (4, 192)
    """
    stored = None
    if clip_store is not None:
        # a model can be built before its features are made
        with suppress(FileNotFoundError):
            stored = read_manifest(clip_store).stamp.channels

    if stored is None and clip_channels is None:
        raise ValueError(f'clip_channels is not given and there is no feature store {clip_store}')
    if stored is None:
        return clip_channels
    if clip_channels not in (None, stored):
        print_log(
            f'{clip_store}: its maps have {stored} channels, not {clip_channels}', logger='current'
        )
    return stored
