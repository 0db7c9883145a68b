"""How many channels the frozen tokens have, before any map is read.

Enters: the folder of a feature store, which need not be there yet. Leaves: C.
"""

import os
from contextlib import suppress

from mmengine.logging import print_log

from .manifest import read_manifest


def token_channels(clip_store: str | os.PathLike | None, clip_channels: int | None) -> int:
    """C of the tokens as the header of a store says, or as given where there is no store yet.

    A store may hold the tokens shuffled into more cells; every reader takes them back, so it is the
    tokens' channels that networks are built for.

    A header that says otherwise than ``clip_channels`` wins, and the log says so.

    Raises:
        ValueError: neither is there.

    Example:
        >>> from oneformer3d.store.examples import example_store
        >>> token_channels(example_store(), None), token_channels('/not/there/yet', 768)
        (4, 768)
    """
    stored = None
    if clip_store is not None:
        # a model can be built before its features are made
        with suppress(FileNotFoundError):
            stored = read_manifest(clip_store).stamp.token_channels

    if stored is None:
        if clip_channels is None:
            raise ValueError(
                f'clip_channels is not given and there is no feature store {clip_store}'
            )
        return clip_channels
    if clip_channels not in (None, stored):
        print_log(
            f'{clip_store}: its tokens have {stored} channels, not {clip_channels}',
            logger='current',
        )
    return stored
