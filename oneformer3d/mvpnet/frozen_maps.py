"""Maps of an image network in which nothing trains, each computed once.

Enters: views with images. Leaves: ``ImageMaps``, from memory or from a feature store where they
have been before. Letters as in ``structures``.
"""

import os
from pathlib import Path

import torch
from mmengine.dist import get_rank
from torch import Tensor

from oneformer3d.backbones.fpn import FeaturePyramid, ImageMaps, padded_size
from oneformer3d.clip.weights import weights_digest
from oneformer3d.lifting.map_cache import Key, MapCache, weights_version
from oneformer3d.store import FeatureStore, FeatureStoreWriter, StoreStamp
from oneformer3d.structures import PosedViews

from .lift_views import images_of

_BATCH = 8  # images at a time


class FrozenMaps:
    """Maps of a frozen pyramid, each computed once; has no parameters.

    Args:
        pyramid: in which nothing trains, with one summed map.
        store: folder for a feature store named by the weights; None holds maps in memory.
        max_bytes: of the memory; the least recently used go first. Maps are held as float16.
    """

    def __init__(
        self,
        pyramid: FeaturePyramid,
        store: str | os.PathLike | None = None,
        max_bytes: int = 1 << 30,
    ) -> None:
        if not pyramid.frozen or pyramid.fuse != 'sum':
            raise ValueError("only the summed map of a frozen network is kept: frozen, fuse='sum'")
        if max_bytes < 0:
            raise ValueError(f'max_bytes must not be negative, got {max_bytes}')
        self.pyramid = pyramid
        self.store = store
        self.memory = MapCache(max_bytes, torch.float16)
        self._reader: FeatureStore | None = None
        self._writer: FeatureStoreWriter | None = None
        self._digest = ''
        self._version = -1  # of the weights of that digest

    @torch.no_grad()
    def __call__(self, views: PosedViews) -> ImageMaps:
        """Maps of the images, computed once where scene and frame have names.

        Raises:
            ValueError: views without images.
        """
        images = images_of(views)
        covered = padded_size(images)
        if not (views.scene_id and views.frames):
            return ImageMaps((self._compute(images),), covered)

        # what has been computed before, with the weights of now
        self.memory.bind(self.pyramid)
        keys = [(views.scene_id, frame) for frame in views.frames]
        store = None if self.store is None else self._to_read(self.store, covered)
        kept = {key: self._get(key, covered, store) for key in keys}
        found = {key: cells for key, cells in kept.items() if cells is not None}

        # the rest is computed, and stored
        missing = [i for i, key in enumerate(keys) if key not in found]
        if missing:
            computed = self._compute(images[missing]).permute(0, 2, 3, 1)  # (n, h, w, C)
            for i, cells in zip(missing, computed):
                found[keys[i]] = self._put(keys[i], cells, covered)
            if self._writer is not None:
                self._writer.flush()

        stacked = torch.stack([found[key].to(images.device) for key in keys]).float()
        return ImageMaps((stacked.permute(0, 3, 1, 2),), covered)

    def close(self) -> None:
        """Give the store's shard back to other writers."""
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None

    def _compute(self, images: Tensor) -> Tensor:
        chunks = [self.pyramid(chunk).maps[0] for chunk in images.split(_BATCH)]
        return torch.cat(chunks).contiguous(memory_format=torch.channels_last)

    def _get(
        self, key: Key, covered: tuple[int, int], store: FeatureStore | FeatureStoreWriter | None
    ) -> Tensor | None:
        """Stored cells (h, w, C), or None."""
        if self.store is None:
            record = self.memory.get((*key, covered))
            return None if record is None else record['cells']
        if store is None or not store.has(*key):
            return None
        return torch.from_numpy(store.get(*key)['feat']).permute(1, 2, 0)

    def _put(self, key: Key, cells: Tensor, covered: tuple[int, int]) -> Tensor:
        """Store cells; returned as they are stored."""
        record = self.memory.stored({'cells': cells})
        if self.store is None:
            self.memory.put((*key, covered), record)
        else:
            feat = record['cells'].permute(2, 0, 1).contiguous().numpy()
            self._to_write(self.store, covered).put(*key, {'feat': feat})
        return record['cells']

    def _to_read(
        self, store: str | os.PathLike, covered: tuple[int, int]
    ) -> FeatureStore | FeatureStoreWriter | None:
        """The store of these weights, if there is one. Any number of processes may read it."""
        folder, stamp = self._location(store, covered)
        if self._writer is not None:
            return self._writer
        if self._reader is None:
            try:
                self._reader = FeatureStore(folder, stamp)
            except FileNotFoundError:
                return None
        return self._reader

    def _to_write(self, store: str | os.PathLike, covered: tuple[int, int]) -> FeatureStoreWriter:
        """The store of these weights, made where there is none. One process may write it."""
        folder, stamp = self._location(store, covered)
        if self._writer is None:
            self._writer = FeatureStoreWriter(folder, stamp, rank=get_rank())
        return self._writer

    def _location(
        self, store: str | os.PathLike, covered: tuple[int, int]
    ) -> tuple[Path, StoreStamp]:
        """Folder and stamp of the store; what is open of other weights is closed."""
        version = weights_version(self.pyramid)
        if version != self._version:
            self.close()
            self._version, self._digest = version, weights_digest(self.pyramid)

        stamp = StoreStamp(
            encoder='FeaturePyramid',
            weights_digest=self._digest,
            layer='res2+res3+res4+res5',
            mode='tokens',
            attn_mode='none',
            input_size=covered,
            dtype='float16',
            preprocessing='padded to multiples of 32, ImageNet mean and std',
            channels=self.pyramid.out_channels,
            grid=(covered[0] // 4, covered[1] // 4),
        )
        return Path(store) / self._digest[:16], stamp

    def __getstate__(self) -> dict:
        return {**self.__dict__, '_reader': None, '_writer': None}
