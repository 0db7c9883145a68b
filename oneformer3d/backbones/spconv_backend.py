"""The same convolutions computed by ``spconv``, which is imported on first use.

Enters: a ``SparseTensor`` and a weight (out, kD, kH, kW, in). Leaves: a ``SparseTensor``. spconv's
own pair tables take the place of our rulebooks in the tensor's cache. Only geometry is handed to
spconv's modules; the parameters stay ours.

spconv computes in float32, or float16 under float16 autocast; it has no bfloat16. Its CPU build is
wrong with more than one torch thread, so it serves comparisons only.
"""

import functools
from dataclasses import replace
from types import ModuleType

import torch
from torch import Tensor

from .rulebook import Triple
from .sparse_tensor import SparseTensor


def submanifold(
    tensor: SparseTensor, weight: Tensor, bias: Tensor | None, dilation: Triple
) -> SparseTensor:
    """Submanifold convolution."""
    # The anchor in the cache holds on to these very coordinates, so their id stays theirs.
    key = ('submanifold', id(tensor.coords), tuple(weight.shape[1:4]), dilation)
    tensor.indice_cache.setdefault(('coords', id(tensor.coords)), tensor.coords)
    out = _run(tensor, weight, bias, key, subm=True, dilation=dilation)
    return tensor.with_features(out.features)


def strided(
    tensor: SparseTensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Triple,
    padding: Triple,
    dilation: Triple,
    indice_key: str | None,
) -> SparseTensor:
    """Strided convolution; with a name, an inverse one can return to the tensor's voxels.

    Raises:
        ValueError: the name belongs to another convolution already.
    """
    key = None if indice_key is None else ('named', indice_key)
    if key is not None:
        inputs = tensor.indice_cache.setdefault(
            ('inputs', indice_key), (tensor.coords, tensor.spatial_shape)
        )
        if inputs[0] is not tensor.coords:
            raise ValueError(f'indice_key {indice_key!r} names another convolution already')
        # spconv re-uses pairs of submanifold convolutions only
        _pairs(tensor).pop(key, None)

    out = _run(tensor, weight, bias, key, stride=stride, padding=padding, dilation=dilation)
    return replace(
        tensor,
        features=out.features,
        coords=out.indices,
        spatial_shape=tuple(out.spatial_shape),
    )


def inverse(
    tensor: SparseTensor, weight: Tensor, bias: Tensor | None, indice_key: str
) -> SparseTensor:
    """Transposed convolution back onto the voxels that the named convolution read.

    Raises:
        ValueError: no such convolution came before.
    """
    if ('inputs', indice_key) not in tensor.indice_cache:
        raise ValueError(f'no convolution with indice_key {indice_key!r} came before its inverse')
    coords, spatial_shape = tensor.indice_cache['inputs', indice_key]
    out = _run(tensor, weight, bias, ('named', indice_key), inverse=True)
    return replace(tensor, features=out.features, coords=coords, spatial_shape=spatial_shape)


def _run(tensor: SparseTensor, weight: Tensor, bias: Tensor | None, key: tuple | None, **geometry):
    """One convolution in spconv, its pairs kept in the tensor's cache under ``key``."""
    spconv = _import_spconv()
    device = tensor.features.device.type
    half = torch.is_autocast_enabled(device) and (torch.get_autocast_dtype(device) == torch.float16)
    dtype = torch.float16 if half else torch.float32

    # only the geometry is spconv's: its module holds no parameters of ours
    layer = spconv.conv.SparseConvolutionBase(
        3,
        weight.shape[-1],
        weight.shape[0],
        list(weight.shape[1:4]),
        indice_key=key,
        **{name: list(v) if isinstance(v, tuple) else v for name, v in geometry.items()},
    )

    entering = spconv.SparseConvTensor(
        tensor.features.to(dtype),
        tensor.coords.int(),
        list(tensor.spatial_shape),
        tensor.batch_size,
        indice_dict=_pairs(tensor),
    )

    with torch.autocast(device, enabled=False):
        out = layer._conv_forward(
            # spconv's inference path records no gradients
            torch.is_grad_enabled(),
            entering,
            weight.to(dtype),
            None if bias is None else bias.to(dtype),
        )
    _pairs(tensor).update(out.indice_dict)
    return out


def _pairs(tensor: SparseTensor) -> dict:
    """spconv's part of the tensor's cache."""
    return tensor.indice_cache.setdefault('spconv', {})


@functools.cache
def _import_spconv() -> ModuleType:
    try:
        import spconv.pytorch as spconv
    except ImportError as error:
        raise ImportError(
            'sparse convolution on CUDA needs the package spconv-cu126 (tools/setup.sh --cuda); '
            "without it, make the SparseTensor with backend='torch'"
        ) from error
    return spconv
