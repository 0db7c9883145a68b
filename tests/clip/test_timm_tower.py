"""Networks of timm behind the interface of CLIP's towers; no trained weights are at hand."""

import pytest
import timm
import torch
import torch.nn.functional as F
from mmengine.logging import MMLogger

from oneformer3d.clip.timm_tower import TimmEncoder

NAME = 'vit_tiny_patch16_224'


def random_images(num: int = 2) -> torch.Tensor:
    return torch.randint(0, 256, (num, 3, 80, 112), dtype=torch.uint8)


def test_features_are_those_of_timm(tmp_path):
    """Weights of a file, the network's own normalisation, tokens of two blocks in their places."""
    torch.manual_seed(0)
    network = timm.create_model(NAME, num_classes=0, img_size=(64, 96)).eval()
    torch.save(network.state_dict(), tmp_path / 'weights.pth')
    encoder = TimmEncoder(f'timm/{NAME}', tmp_path / 'weights.pth', (64, 96), layers=[5, -1])
    images = random_images()
    feat, embedding = encoder(images)

    pixels = images.float() / 255
    pixels = F.interpolate(pixels, (64, 96), mode='bicubic', antialias=True).clamp(0, 1)
    with torch.no_grad():
        expected = network.forward_features((pixels - 0.5) / 0.5)  # (B, 1 + h·w, C)
    grid = expected[:, 1:].transpose(1, 2).unflatten(2, (4, 6))
    torch.testing.assert_close(feat[:, 192:], grid, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(embedding, expected[:, 0], atol=1e-4, rtol=1e-4)
    assert feat.shape == (2, encoder.num_channels, *encoder.grid) == (2, 384, 4, 6)
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert not encoder.train().network.training


def test_the_stamp_tells_networks_apart_and_describes_the_map():
    def seeded(seed: int) -> TimmEncoder:
        torch.manual_seed(seed)
        return TimmEncoder(f'timm/{NAME}', 'none', 64, dtype='fp16')

    first, same, other = seeded(0), seeded(0), seeded(1)
    assert first.stamp() == same.stamp()
    assert first.stamp() != other.stamp()
    feat = first(random_images(1)).feat
    assert feat.dtype == torch.float16
    stamp = first.stamp(pixel_shuffle=2)
    assert (stamp.token_channels, *stamp.token_grid) == tuple(feat.shape[1:])


def test_stages_of_other_strides_are_joined_at_the_finest():
    encoder = TimmEncoder('timm/resnet18', 'none', (64, 96), layers=[3, 4])
    feat, embedding = encoder(random_images())
    assert feat.shape == (2, 256 + 512, 4, 6)
    assert embedding.shape == (2, encoder.embed_dim)


def test_random_weights_are_said_loudly(caplog):
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    try:
        TimmEncoder(f'timm/{NAME}', 'none', 64)
    finally:
        logger.removeHandler(caplog.handler)
    assert any('RANDOM weights' in message for message in caplog.messages)


@pytest.mark.parametrize(
    ('changes', 'error', 'message'),
    [
        ({'model': 'timm/no_such_model'}, ValueError, "timm has no model 'no_such_model'"),
        ({'weights': 'nowhere.pth'}, FileNotFoundError, 'nowhere.pth: no such file of weights'),
        ({'layers': [12]}, ValueError, 'layers: expected some of 0…11'),
        ({'dtype': 'bf16'}, ValueError, 'dtype'),
    ],
)
def test_faults_are_named(changes, error, message):
    settings = {'model': f'timm/{NAME}', 'weights': 'none', 'input_size': 64, **changes}
    with pytest.raises(error, match=message):
        TimmEncoder(**settings)


def test_weights_of_another_network_are_refused(tmp_path):
    torch.save({'head.weight': torch.zeros(3, 3)}, tmp_path / 'other.pth')
    with pytest.raises(ValueError, match=r'other\.pth: does not fit'):
        TimmEncoder(f'timm/{NAME}', tmp_path / 'other.pth', 64)
