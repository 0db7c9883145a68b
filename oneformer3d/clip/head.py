"""From what a tower gives to the map that points are sampled from.

Enters: a dense map (V, C, h, w). Stored is the map after PixelShuffle ×2, (V, C/4, 2h, 2w), before
anything trainable; online a 1×1 convolution and a bilinear enlargement give (V, 256, 4h, 4w). For
ViT-B/16 at 224 pixels: 768×14×14 → 192×28×28 → 256×28×28 → 256×56×56.
"""

import torch.nn.functional as F
from torch import Tensor, nn


def pixel_shuffle_features(feat: Tensor, factor: int = 2) -> Tensor:
    """Trade channels for resolution; nothing is learnt or lost.

    Args:
        feat: (…, C, h, w) with C a multiple of factor².
        factor: of the resolution.

    Returns:
        (…, C / factor², factor·h, factor·w).

    Raises:
        ValueError: the channels cannot be divided.
    """
    if factor < 1 or feat.shape[-3] % factor**2:
        raise ValueError(
            f'pixel shuffle ×{factor} needs a multiple of {factor**2} channels, '
            f'got {feat.shape[-3]}'
        )
    return F.pixel_shuffle(feat, factor)


class FeatureHead(nn.Module):
    """The part of the image branch that stays trainable: Conv1×1 → neck → bilinear.

    Args:
        in_channels: of the stored map; read it from the store.
        out_channels: after the convolution.
        upsample: factor of the bilinear enlargement.
        neck: a module (V, out_channels, h, w) → same shape between the two, e.g. TinySA2D.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 256,
        upsample: int = 2,
        neck: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if in_channels < 1 or out_channels < 1 or upsample < 1:
            raise ValueError(
                f'expected positive channels and factor, got {in_channels}, {out_channels}, '
                f'{upsample}'
            )
        self.in_channels, self.out_channels, self.upsample = in_channels, out_channels, upsample
        self.proj = nn.Conv2d(in_channels, out_channels, kernel_size=1)
        self.neck = nn.Identity() if neck is None else neck

    def forward(self, feat: Tensor) -> Tensor:
        """Enlarged map.

        Args:
            feat: (V, in_channels, h, w), any float type; V may be 0.

        Returns:
            (V, out_channels, upsample·h, upsample·w) in the type of the weights (or autocast's).

        Raises:
            ValueError: other channels than the head was made for.
        """
        if feat.ndim != 4 or feat.shape[1] != self.in_channels:
            raise ValueError(
                f'expected a map (V, {self.in_channels}, h, w), got {tuple(feat.shape)}'
            )
        x = self.proj(feat.to(self.proj.weight.dtype))
        if not len(x):
            height, width = x.shape[-2:]
            return x.new_zeros(0, self.out_channels, height * self.upsample, width * self.upsample)
        x = self.neck(x)
        if self.upsample == 1:
            return x
        return F.interpolate(x, scale_factor=self.upsample, mode='bilinear', align_corners=False)
