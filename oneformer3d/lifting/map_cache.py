"""Feature maps of images, kept so that each image goes through the extractor once.

Enters: maps {name: (C, h, w)} of an image, and what names it. Leaves: the same maps, from memory or
as the arrays that a feature store takes. Which stores, their owner decides: nothing is imported
here.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from .pixel_shuffle import frozen_tokens, pixel_shuffle_features

Key = tuple[str, str]  # scene, frame
Maps = dict[str, Tensor]  # name → (C, h, w)


class MapStamp(Protocol):
    """What a store says about its maps."""

    @property
    def shuffle_factor(self) -> int:
        """Of ``pixel_shuffle`` that ``feat`` went through, 1 for none."""
        ...


class MapStore(Protocol):
    """Where feature maps outlive the process: any writer of a feature store."""

    @property
    def stamp(self) -> MapStamp:
        """Of its maps."""
        ...

    def has(self, scene: str, frame: str) -> bool:
        """Whether the frame is there."""
        ...

    def get(self, scene: str, frame: str) -> Mapping[str, Any]:
        """Arrays of a frame by name."""
        ...

    def put(self, scene: str, frame: str, arrays: Mapping[str, Any]) -> object:
        """Keep arrays of a frame."""


class MapCache:
    """Feature maps of images in memory up to a number of bytes; the least recently used go first.

    Args:
        max_bytes: kept at most; an image whose maps alone exceed it is not kept.
        dtype: floating point type they are kept in; None keeps theirs.

    Example:
        >>> cache = MapCache(1 << 20, torch.float16)
        >>> cache.put('image', cache.stored({'feat': torch.zeros(8, 4, 4)}))
        >>> cache.get('image')['feat'].dtype, len(cache), cache.num_bytes
        (torch.float16, 1, 256)
    """

    def __init__(self, max_bytes: int, dtype: torch.dtype | None = None) -> None:
        self.max_bytes = max_bytes
        self.dtype = dtype
        self.num_bytes = 0
        self._maps: OrderedDict[Any, Maps] = OrderedDict()
        self._owner: object = None
        self._version: int | None = None

    def __len__(self) -> int:
        return len(self._maps)

    def get(self, name: Any) -> Maps | None:
        """Maps of an image, or None."""
        if name in self._maps:
            self._maps.move_to_end(name)
        return self._maps.get(name)

    def put(self, name: Any, maps: Maps) -> None:
        """Keep maps, dropping others as needed."""
        size = _num_bytes(maps)
        if size > self.max_bytes:
            return
        if name in self._maps:
            self.num_bytes -= _num_bytes(self._maps.pop(name))
        self._maps[name] = maps
        self.num_bytes += size
        while self.num_bytes > self.max_bytes:
            self.num_bytes -= _num_bytes(self._maps.popitem(last=False)[1])

    def clear(self) -> None:
        """Forget everything."""
        self._maps.clear()
        self.num_bytes = 0

    def bind(self, owner: object) -> None:
        """Empty the cache unless it holds maps of this extractor with these weights."""
        version = weights_version(owner) if isinstance(owner, nn.Module) else None
        if owner != self._owner or version != self._version:
            self.clear()
        self._owner, self._version = owner, version

    def stored(self, maps: Mapping[str, Tensor]) -> Maps:
        """Maps as they are kept: on the CPU, in the cache's type, of their own memory."""
        return {
            name: x.detach().to('cpu', self.dtype or x.dtype, copy=True) for name, x in maps.items()
        }


def weights_version(module: nn.Module) -> int:
    """A number that grows whenever an optimiser or loaded weights write to a module.

    Autograd counts the writes to every tensor in ``_version``. Comparing the weights themselves
    would cost more than the maps that are kept save.
    """
    return sum(x._version for x in [*module.parameters(), *module.buffers()])


def image_digest(image: Tensor) -> str:
    """A name for an image that its content decides."""
    content = image.detach().cpu().contiguous()
    head = f'{content.dtype} {tuple(content.shape)} '.encode()
    return hashlib.sha1(head + content.view(torch.uint8).numpy().tobytes()).hexdigest()


def to_arrays(maps: Maps, shuffle_factor: int = 1) -> dict[str, Any]:
    """Maps under the names a feature store takes: ``feat``, ``feat1``, …, and their own names.

    Args:
        maps: of an image.
        shuffle_factor: of the store's stamp; ``feat`` goes through that ``pixel_shuffle``.
    """
    arrays: dict[str, Any] = {
        _array(i): x.contiguous().numpy() for i, x in enumerate(maps.values())
    }
    if shuffle_factor > 1:
        stored = pixel_shuffle_features(torch.from_numpy(arrays['feat']), shuffle_factor)
        arrays['feat'] = stored.contiguous().numpy()
    names = torch.tensor(list('\n'.join(maps).encode()), dtype=torch.uint8)
    return arrays | {'names': names.numpy()}


def from_arrays(arrays: Mapping[str, Any], shuffle_factor: int = 1) -> Maps:
    """Maps of ``to_arrays``, or the one map of a record that has no names, as extraction writes."""
    arrays = dict(arrays)
    tokens = frozen_tokens(torch.from_numpy(arrays.pop('feat')), shuffle_factor)
    if 'names' not in arrays:
        return {'feat': tokens}

    first, *names = bytes(arrays['names'].tolist()).decode().split('\n')
    further = {name: torch.from_numpy(arrays[_array(i)]) for i, name in enumerate(names, start=1)}
    return {first: tokens, **further}


def _array(index: int) -> str:
    return f'feat{index}' if index else 'feat'


def _num_bytes(maps: Maps) -> int:
    return sum(x.numel() * x.element_size() for x in maps.values())
