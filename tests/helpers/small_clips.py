"""Small CLIPs with random weights, built the way the large ones are."""

import torch

from oneformer3d.clip.encoder import ClipEncoder

_TEXT = {'context_length': 16, 'vocab_size': 49408, 'width': 32, 'heads': 2, 'layers': 1}
SMALL_VIT = {
    'name': 'small-vit',
    'embed_dim': 24,
    'vision_cfg': {
        'image_size': 48,
        'patch_size': 8,
        'layers': 3,
        'width': 32,
        'head_width': 8,
    },
    'text_cfg': _TEXT,
}
SMALL_RESNET = {
    'name': 'small-resnet',
    'embed_dim': 24,
    'vision_cfg': {'image_size': 96, 'layers': [1, 1, 1, 1], 'width': 8, 'head_width': 64},
    'text_cfg': _TEXT,
}


def small_encoder(config: dict = SMALL_VIT, **settings) -> ClipEncoder:
    """An encoder whose parameters are all random, none of them zero."""
    encoder = ClipEncoder(config, weights='none', **settings)
    with torch.no_grad():
        for parameter in encoder.visual.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
        for name, buffer in encoder.visual.named_buffers():
            if name.endswith('running_mean'):
                buffer.add_(0.1 * torch.randn(buffer.shape))
    return encoder


def random_images(count: int = 2, height: int = 48, width: int = 48) -> torch.Tensor:
    """uint8 images."""
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8)
