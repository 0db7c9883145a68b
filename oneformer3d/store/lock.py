"""One writer per shard.

Enters: the path of a shard. Leaves: the lock beside it.
"""

import os
from pathlib import Path

from oneformer3d.files.lock import LockedError, ProcessLock


class StoreLockedError(LockedError):
    """Another writer has the shard."""


class WriterLock(ProcessLock):
    """The lock of a shard: the file beside it that ends in ``.pid``.

    Args:
        shard: path of the shard.
    """

    def __init__(self, shard: Path) -> None:
        shard = Path(os.path.realpath(shard))
        path = shard.with_name(shard.name + '.pid')
        super().__init__(path, shard, 'a shard has one writer at a time', StoreLockedError)
