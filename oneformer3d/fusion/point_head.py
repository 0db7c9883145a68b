"""From frozen tokens to 128 numbers per point: the trained layers, or a fixed projection.

Enters: tokens (C, h, w) and pixels (P, 2) of the image it covers. Leaves: (P, 128) float32. The
trained layers are the whole image branch of the fusion encoder.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from oneformer3d.files.checkpoints import load_checkpoint_file
from oneformer3d.lifting.uv import sample_img_feat

_CONV, _LINEAR = 'head.proj.weight', 'linear.weight'


@dataclass(frozen=True)
class PointHead:
    """A projection of a map's features at pixels.

    Attributes:
        description: what it is, for the files it makes.
    """

    description: str
    _project: Callable[[Tensor, Tensor, tuple[int, int]], Tensor]

    def __call__(self, feat: Tensor, uv: Tensor, image_size: tuple[int, int]) -> Tensor:
        """Tokens (C, h, w) and pixels (P, 2) of an image (H, W) → (P, 128) float32."""
        with torch.inference_mode():
            return self._project(feat, uv, image_size)


def orthogonal_point_head(channels: int, out_channels: int = 128, seed: int = 0) -> PointHead:
    """A seeded projection with orthonormal rows (or columns, when it widens)."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.empty(out_channels, channels)
    torch.nn.init.orthogonal_(weight, generator=generator)

    def project(feat: Tensor, uv: Tensor, image_size: tuple[int, int]) -> Tensor:
        return F.linear(sample_img_feat(feat, uv, image_size), weight)

    return PointHead(f'orthogonal projection, not trained, seed {seed}', project)


def load_point_head(
    path: str | Path, channels: int, out_channels: int = 128, upsample: int = 2
) -> PointHead:
    """The image branch of a trained fusion encoder, as it works for a single view.

    Args:
        path: checkpoint of a segmentor with the fusion encoder.
        channels: C of the tokens.
        out_channels: of the branch.
        upsample: of its maps, which is a setting and not in the checkpoint.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no checkpoint, or without such a branch.
    """
    # imported here, because everything else in this module works without it
    from .image_branch import ImageBranch

    state = load_checkpoint_file(path)
    prefix = find_branch(state, channels, out_channels, str(path))
    weights = {name[len(prefix) :]: v for name, v in state.items() if name.startswith(prefix)}
    has_neck = any(name.startswith('head.neck.') for name in weights)
    head_channels = weights[_LINEAR].shape[1]
    sub_pixel = sub_pixel_factor(weights[_CONV].shape, channels, head_channels)
    branch = ImageBranch(
        channels, head_channels, out_channels, upsample, has_neck, sub_pixel=sub_pixel
    )
    try:
        branch.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f'{path}: {prefix}: {" ".join(str(error).split())[:300]}') from error
    branch.eval()

    def project(feat: Tensor, uv: Tensor, image_size: tuple[int, int]) -> Tensor:
        weighted = branch.weighted_maps(feat[None].float())  # (1, 129, h', w')
        sampled = sample_img_feat(weighted, uv, image_size)  # (P, 129)
        return sampled[:, :-1] / sampled[:, -1:]

    return PointHead(f'trained: {prefix.rstrip(".")} of {Path(path).name}', project)


def find_branch(state: Mapping[str, Tensor], channels: int, out_channels: int, source: str) -> str:
    """Prefix of the image branch's names in a state dict.

    Raises:
        ValueError: there is none for this many channels, or more than one.
    """
    prefixes = [name.removesuffix(_CONV) for name in state if name.endswith(_CONV)]
    fitting = []
    for prefix in prefixes:
        conv, linear = state[prefix + _CONV], state.get(prefix + _LINEAR)
        if linear is None or linear.ndim != 2 or len(linear) != out_channels:
            continue
        if sub_pixel_factor(conv.shape, channels, linear.shape[1]):
            fitting.append(prefix)

    if len(fitting) != 1:
        found = [f'{p}{_CONV} {tuple(state[p + _CONV].shape)}' for p in prefixes]
        raise ValueError(
            f'{source}: expected one image branch from {channels} to {out_channels} channels, '
            f'got {", ".join(found) or "none"}'
        )
    return fitting[0]


def sub_pixel_factor(shape: Sequence[int], channels: int, head_channels: int) -> int:
    """Factor of the enlargement that a convolution's shape stands for, 0 where it does not fit.

    Args:
        shape: (f²·D, C, 1, 1), or (D, C / f², 1, 1) from a time when one convolution was shared by
            all cells of a shuffled map.
        channels: C.
        head_channels: D.
    """
    out_channels, in_channels = shape[:2]
    cells = (out_channels // head_channels) * (channels // in_channels)  # f², one of the two is 1
    factor = math.isqrt(cells)
    whole = out_channels * channels == cells * head_channels * in_channels
    return factor if whole and factor**2 == cells and tuple(shape[2:]) == (1, 1) else 0
