"""All that ``OnlineMerge`` knows, as arrays.

Enters and leaves: ``MergeState``; a .npz file that loads without pickle.
"""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from oneformer3d.files.atomic import atomic_path


@dataclass(frozen=True, eq=False)
class MergeState:
    """A snapshot.

    Attributes:
        arrays: copies of everything, by name. What frames voted stays in the ledger's file, of
            which the snapshot holds the index.
    """

    arrays: dict[str, NDArray]

    def save(self, path: str | Path) -> None:
        """Write the snapshot, whole or not at all."""
        with atomic_path(path) as temporary:
            np.savez(temporary, allow_pickle=False, **self.arrays)

    @classmethod
    def load(cls, path: str | Path) -> 'MergeState':
        """Read a snapshot.

        Raises:
            FileNotFoundError: there is none.
            ValueError: the file is broken.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return cls(dict(arrays))
        except (zipfile.BadZipFile, ValueError, EOFError, KeyError) as error:
            raise ValueError(f'{path}: no snapshot of tracks ({error})') from error
