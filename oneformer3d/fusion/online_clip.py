"""CLIP within the network: images of a batch → their maps, kept in a feature store.

Enters: ``PosedViews`` with images. Leaves: the same views with ``feat`` and ``clip_global``. The
first time a frame is met its features are computed and written, later they are read. On a GPU the
tower computes in half precision, as extraction does there, so that both fill the same store.
"""

import os
from dataclasses import replace
from typing import Any

import torch
from mmengine.dist import get_rank
from torch import Tensor, nn

from oneformer3d.clip.encoder import ClipEncoder
from oneformer3d.clip.freezing import freeze_clip_except_last_blocks
from oneformer3d.lifting.pixel_shuffle import frozen_tokens, pixel_shuffle_features
from oneformer3d.store import FeatureStoreWriter, StoreStamp
from oneformer3d.structures import PosedViews

SMALL_GPU_BYTES = 8 << 30


class OnlineClip(nn.Module):
    """A CLIP tower that serves the image branch.

    Args:
        encoder: settings of ``ClipEncoder``; its map is float16 unless said otherwise.
        num_train_blocks: last residual blocks that train; 0 keeps all of it frozen.
        clip_store: folder of a feature store that is filled on first use, None for none. Names
            of scenes and frames are its keys; views without names are always computed.
        pixel_shuffle: factor that the maps of the store go through, None for extraction's: 2 for
            tokens, 1 in the text space. The views get the tokens.
        batch_size: images at a time.
        memory_budget: bytes; on a GPU with less memory in all, CLIP waits on the CPU and is
            moved over for each use.
        use_amp: half precision on CUDA; its weights stay float32.

    Raises:
        ValueError: a store for features that change while they train.
    """

    def __init__(
        self,
        encoder: dict[str, Any] | None = None,
        num_train_blocks: int = 0,
        clip_store: str | os.PathLike | None = None,
        pixel_shuffle: int | None = None,
        batch_size: int = 32,
        memory_budget: int = SMALL_GPU_BYTES,
        use_amp: bool = True,
    ) -> None:
        super().__init__()
        if num_train_blocks and clip_store is not None:
            raise ValueError('features that train cannot be kept in a store: freeze_blocks=0')

        # the visual tower may train in its last blocks, the rest never
        self.clip = ClipEncoder(**{'dtype': 'fp16', **(encoder or {})})
        freeze_clip_except_last_blocks(self.clip.visual, num_train_blocks)
        for name, parameter in self.clip.named_parameters():
            if not name.startswith('clip.visual.'):
                parameter.requires_grad_(False)

        self.num_train_blocks = num_train_blocks
        self.clip_store = clip_store
        if pixel_shuffle is None:
            pixel_shuffle = 2 if self.clip.mode == 'tokens' else 1
        self.pixel_shuffle = pixel_shuffle
        self.batch_size = batch_size
        self.memory_budget = memory_budget
        self.use_amp = use_amp
        self._writer: FeatureStoreWriter | None = None

    @property
    def stamp(self) -> StoreStamp:
        """What makes these features where the tower is."""
        return self.stamp_on(next(self.clip.parameters()).device)

    def stamp_on(self, device: torch.device) -> StoreStamp:
        """What makes these features there."""
        return self.clip.stamp(self.pixel_shuffle, self._compute_dtype(device))

    @property
    def clip_channels(self) -> int:
        """C of the tokens."""
        return self.clip.num_channels

    def forward(self, views: PosedViews) -> PosedViews:
        """The views with features.

        Raises:
            ValueError: views without images.
        """
        if views.images is None:
            raise ValueError(f'{views.scene_id}: views have neither feature maps nor images')
        if self.clip_store is None or not (views.scene_id and views.frames):
            feat, embedding = self.encode(views.images)
        else:
            if self._writer is None:
                self._writer = self._open_store(views.images.device)
            feat, embedding = self._stored(self._writer, views, views.images)
        return replace(views, feat=feat, clip_global=embedding)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(V, 3, H, W) images, uint8 or 0–1 → tokens (V, C, h, w) and embeddings (V, D)."""
        grid = self.clip.grid
        if len(images) == 0:
            return (
                images.new_zeros(0, self.clip_channels, *grid, dtype=torch.float32),
                images.new_zeros(0, self.clip.embed_dim, dtype=torch.float32),
            )

        # on a small GPU the tower is there only while it works
        home = next(self.clip.parameters()).device
        offload = self._offloads(images.device)
        if home != images.device:
            self.clip.to(images.device)
        # a frozen tower gives what its stamp says, whatever the training around it computes in
        half = self._compute_dtype(images.device) == torch.float16
        with torch.autocast(images.device.type, torch.float16, enabled=half):
            chunks = [self.clip(chunk) for chunk in images.split(self.batch_size)]
            feat = torch.cat([chunk.feat for chunk in chunks])  # (V, C, h, w)
            embedding = torch.cat([chunk.clip_global for chunk in chunks])  # (V, D)

        if offload:
            self.clip.to('cpu')
        return feat, embedding

    def _stored(
        self, store: FeatureStoreWriter, views: PosedViews, images: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Features read from the store; those that are missing are computed and written first."""
        keys = [(views.scene_id, frame) for frame in views.frames]
        missing = [i for i, key in enumerate(keys) if not store.has(*key)]
        if missing:
            feat, embedding = self.encode(images[missing])
            feat = pixel_shuffle_features(feat, self.pixel_shuffle)
            for i, map_, vector in zip(missing, feat.cpu().numpy(), embedding.cpu().numpy()):
                store.put(*keys[i], {'feat': map_, 'clip_global': vector})
            store.flush()

        records = [store.get(*key) for key in keys]
        feat, embedding = (
            torch.stack([torch.from_numpy(record[name]) for record in records])
            for name in ('feat', 'clip_global')
        )
        device = images.device
        return frozen_tokens(feat, self.pixel_shuffle).to(device), embedding.to(device)

    def _open_store(self, device: torch.device) -> FeatureStoreWriter:
        assert self.clip_store is not None
        return FeatureStoreWriter(self.clip_store, self.stamp_on(device), rank=get_rank())

    def _compute_dtype(self, device: torch.device) -> torch.dtype:
        """Half on CUDA, unless the tower was told to compute in another type."""
        halves = self.use_amp and device.type == 'cuda'
        if halves and self.clip.compute_dtype == torch.float32:
            return torch.float16
        return self.clip.compute_dtype

    def _offloads(self, device: torch.device) -> bool:
        if device.type != 'cuda' or self.num_train_blocks:
            return False
        return torch.cuda.get_device_properties(device).total_memory < self.memory_budget

    def close(self) -> None:
        """Give the store's shard back to other writers."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, '_writer': None}
