"""A backbone of images or of video, and ``STMDecoder`` on its maps: clips → tubes with actions.

Enters: clips (B, 3, T, H, W) in 0…1. Leaves: the ``StageOutput`` of every stage.

Letters: B clips, T frames, D channels, h × w cells of a map.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import video

from oneformer3d.backbones.fpn import build_fpn_backbone
from oneformer3d.files.checkpoints import load_checkpoint_file

from .decoder import STMDecoder
from .stage import StageOutput

# Of ImageNet and of Kinetics, as torchvision's models expect.
_IMAGE_MEAN, _IMAGE_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_VIDEO_MEAN, _VIDEO_STD = (0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)
VIDEO_BACKBONES = ('r3d_18', 'mc3_18', 'r2plus1d_18')


class ClipDetector(nn.Module):
    """Boxes and actions of persons in clips.

    Args:
        backbone: 'r3d_18', 'mc3_18' or 'r2plus1d_18' of torchvision, which mix frames; the name of
            an image backbone (a torchvision ResNet, or 'timm/<name>'), which sees each frame by
            itself; or 'patches', a few convolutions of each frame, enough for drawn clips.
        weights: file of the backbone's state dict; None for random ones.
        channels: D.
        num_frames: T.
        num_actions: of the decoder.
        num_stages, num_queries, spatial_points, num_heads, out_multiplier: of the decoder.
        feedforward_channels: of the decoder; None for eight times the channels.

    Raises:
        FileNotFoundError: no such file of weights.
        ValueError: a backbone that is not known, or weights of another one.
    """

    def __init__(
        self,
        backbone: str = 'r3d_18',
        weights: str | Path | None = None,
        channels: int = 256,
        num_frames: int = 4,
        num_actions: int = 80,
        *,
        num_stages: int = 6,
        num_queries: int = 100,
        spatial_points: int = 32,
        num_heads: int = 8,
        out_multiplier: int = 4,
        feedforward_channels: int | None = None,
    ) -> None:
        super().__init__()
        if backbone == 'patches':
            if weights is not None:
                raise ValueError(f"{weights}: the backbone 'patches' has no weights to read")
            self.backbone = _PatchMaps(channels)
        else:
            build = _VideoMaps if backbone in VIDEO_BACKBONES else _ImageMaps
            self.backbone = build(backbone, weights)

        # all levels of one width, as the decoder samples them
        self.lateral = nn.ModuleList(nn.Conv3d(d, channels, 1) for d in self.backbone.channels)
        self.decoder = STMDecoder(
            num_stages=num_stages,
            num_queries=num_queries,
            query_dim=channels,
            featmap_strides=self.backbone.strides,
            num_heads=num_heads,
            feedforward_channels=feedforward_channels or 8 * channels,
            out_multiplier=out_multiplier,
            spatial_points=spatial_points,
            temporal_points=num_frames,
            num_classes_action=num_actions,
        )

    def forward(self, clips: Tensor) -> list[StageOutput]:
        """Outputs of all stages for clips (B, 3, T, H, W) in 0…1."""
        maps = self.backbone(clips)  # (B, C, T', h, w) each
        maps = [layer(x) for layer, x in zip(self.lateral, maps, strict=True)]
        return self.decoder(maps, tuple(clips.shape[-2:]))


class _VideoMaps(nn.Module):
    """Maps of three stages of a torchvision video network; later ones have fewer frames."""

    strides, channels = (4, 8, 16), (128, 256, 512)
    mean: Tensor
    std: Tensor

    def __init__(self, name: str, weights: str | Path | None) -> None:
        super().__init__()
        self.net = getattr(video, name)(weights=None)
        self.net.fc = nn.Identity()
        if weights is not None:
            state = load_checkpoint_file(weights)
            state = {key: value for key, value in state.items() if not key.startswith('fc.')}
            try:
                self.net.load_state_dict(state)
            except RuntimeError as error:
                raise ValueError(f'{weights}: not weights of {name}') from error
        self.register_buffer('mean', torch.tensor(_VIDEO_MEAN)[:, None, None, None], False)
        self.register_buffer('std', torch.tensor(_VIDEO_STD)[:, None, None, None], False)

    def forward(self, clips: Tensor) -> list[Tensor]:
        x = self.net.layer1(self.net.stem((clips - self.mean) / self.std))  # stride 2
        maps = []
        for layer in (self.net.layer2, self.net.layer3, self.net.layer4):
            x = layer(x)
            maps.append(x)
        return maps


class _PatchMaps(nn.Module):
    """Maps of patches of 4 × 4 pixels and of two halvings, each frame by itself."""

    strides = (4, 8, 16)

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = (channels,) * 3
        self.stem = nn.Sequential(
            nn.Conv2d(3, channels, 4, stride=4),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )
        self.coarser = nn.ModuleList(
            nn.Sequential(nn.ReLU(), nn.Conv2d(channels, channels, 2, stride=2)) for _ in range(2)
        )

    def forward(self, clips: Tensor) -> list[Tensor]:
        frames = clips.transpose(1, 2)  # (B, T, 3, H, W)
        maps = [self.stem((frames.flatten(0, 1) - 0.5) * 2)]  # (B·T, C, h, w)
        for layer in self.coarser:
            maps.append(layer(maps[-1]))
        return [x.unflatten(0, frames.shape[:2]).transpose(1, 2) for x in maps]


class _ImageMaps(nn.Module):
    """Maps of an image backbone, each frame by itself."""

    strides = (4, 8, 16, 32)
    mean: Tensor
    std: Tensor

    def __init__(self, name: str, weights: str | Path | None) -> None:
        super().__init__()
        kind, slash, rest = name.partition('/')
        settings = {'type': 'timm', 'name': rest} if slash and kind == 'timm' else name
        self.net = build_fpn_backbone(settings, None if weights is None else str(weights))
        self.channels = tuple(self.net.channels)
        self.register_buffer('mean', torch.tensor(_IMAGE_MEAN)[:, None, None], False)
        self.register_buffer('std', torch.tensor(_IMAGE_STD)[:, None, None], False)

    def forward(self, clips: Tensor) -> list[Tensor]:
        frames = clips.transpose(1, 2)  # (B, T, 3, H, W)
        maps = self.net((frames.flatten(0, 1) - self.mean) / self.std)
        # (B·T, C, h, w) → (B, C, T, h, w)
        return [x.unflatten(0, frames.shape[:2]).transpose(1, 2) for x in maps.values()]
