"""What a store holds of the views of a scene, as networks read it.

Enters: a store, a scene and names of its frames. Leaves: tensors that stack the frames.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from oneformer3d.lifting.pixel_shuffle import frozen_tokens

from .reader import FeatureStore


def read_views(store: FeatureStore, scene: str, frames: Sequence[str]) -> dict[str, Tensor]:
    """Frozen tokens and embeddings of some frames.

    Args:
        store: of features.
        scene: name of a scene.
        frames: V names, all of which are there.

    Returns:
        ``feat`` (V, C, h, w), the tokens in the type they are stored in, and ``clip_global`` (V, D)
        where there is one. With V = 0 only ``feat``.

    Raises:
        KeyError: a frame that is not there.

    Example:
        >>> from oneformer3d.store.examples import example_store
        >>> read_views(FeatureStore(example_store()), 'room', ['00000'])['feat'].shape
        torch.Size([1, 4, 3, 5])
    """
    stamp = store.stamp
    if not frames:
        return {'feat': torch.zeros(0, stamp.token_channels, *(stamp.token_grid or (1, 1)))}

    records = [store.get(scene, frame) for frame in frames]
    names = [name for name in ('feat', 'clip_global') if name in records[0]]
    content = {n: torch.from_numpy(np.stack([record[n] for record in records])) for n in names}
    return {**content, 'feat': frozen_tokens(content['feat'], stamp.shuffle_factor)}
