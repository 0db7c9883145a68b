"""Image maps: the documented sizes, projectors, padding, other backbones, bad input."""

import pytest
import torch

from oneformer3d.backbones import fpn
from oneformer3d.backbones.fpn import FeaturePyramid, build_fpn_backbone
from oneformer3d.lifting.lift import extract_multiscale_features
from oneformer3d.lifting.sampling import sample_map

STRIDES = {'feat_1/4': 4, 'feat_1/8': 8, 'feat_1/16': 16, 'feat_1/32': 32}


@pytest.fixture(scope='module')
def small() -> FeaturePyramid:
    torch.manual_seed(0)
    return FeaturePyramid('resnet18', channels=8, num_classes=3).eval()


def test_documented_maps_of_resnet50():
    features = extract_multiscale_features(
        torch.randn(2, 3, 96, 128), build_fpn_backbone('resnet50').eval()
    )
    assert list(features) == list(STRIDES)
    for (name, maps), channels in zip(features.items(), (256, 512, 1024, 2048)):
        stride = STRIDES[name]
        assert maps.shape == (2, channels, 96 // stride, 128 // stride)


@pytest.mark.parametrize(
    ('backbone', 'channels'),
    [
        ({'type': 'timm', 'name': 'resnet10t'}, (64, 128, 256, 512)),
        ({'type': 'mmdet.ResNet', 'depth': 18}, (64, 128, 256, 512)),
        (
            {
                'type': 'torchvision',
                'name': 'mobilenet_v3_small',
                'nodes': {
                    'features.1': 'res2',
                    'features.3': 'res3',
                    'features.8': 'res4',
                    'features.12': 'res5',
                },
            },
            (16, 24, 48, 576),
        ),
    ],
    ids=lambda value: value['type'] if isinstance(value, dict) else '',
)
def test_other_backbones(backbone, channels):
    network = build_fpn_backbone(backbone).eval()
    assert network.channels == channels
    shapes = [tuple(x.shape) for x in network(torch.randn(1, 3, 64, 32)).values()]
    assert shapes == [(1, c, 64 // s, 32 // s) for c, s in zip(channels, (4, 8, 16, 32))]


def test_weights_of_a_file(tmp_path):
    from torchvision.models import resnet18

    reference = resnet18().eval()
    path = tmp_path / 'weights.pth'
    torch.save(reference.state_dict(), path)
    image = torch.randn(1, 3, 64, 64)
    maps = build_fpn_backbone('resnet18', str(path)).eval()(image)
    x = reference.maxpool(reference.relu(reference.bn1(reference.conv1(image))))
    torch.testing.assert_close(maps['res3'], reference.layer2(reference.layer1(x)))


def test_projecting_maps_is_projecting_what_is_read(small):
    """A 1×1 convolution of the map commutes with bilinear reading."""
    pixels = small.prepare(torch.rand(1, 3, 64, 96))
    features = extract_multiscale_features(pixels, small.backbone_2d)
    uv = torch.rand(1, 20, 2) * torch.tensor([95.0, 63.0])
    for maps, projector in zip(features.values(), small.projectors):
        weight = projector.weight[:, :, 0, 0]
        after = sample_map(maps, uv, (64, 96)) @ weight.T + projector.bias
        torch.testing.assert_close(
            sample_map(projector(maps), uv, (64, 96)), after, atol=1e-4, rtol=1e-4
        )


def test_sum_reads_every_scale(small):
    images = torch.rand(2, 3, 64, 96)
    maps = small(images)
    assert maps.covered == (64, 96)
    assert maps.maps[0].shape == (2, 8, 16, 24)
    assert maps.maps[0].is_contiguous(memory_format=torch.channels_last)
    features = extract_multiscale_features(small.prepare(images), small.backbone_2d)
    for name in features:
        without = dict(features)
        without[name] = torch.zeros_like(features[name])
        assert (small.merge(list(without.values())) - maps.maps[0]).abs().max() > 1e-4
    assert small.classify(maps).shape == (2, 3, 16, 24)


def test_concat_keeps_the_maps_as_they_are():
    pyramid = FeaturePyramid('resnet18', fuse='concat').eval()
    maps = pyramid(torch.rand(1, 3, 64, 64))
    assert [x.shape[1] for x in maps.maps] == [64, 128, 256, 512]
    assert pyramid.out_channels == maps.num_channels == 960
    with pytest.raises(ValueError, match='no pixel classifier'):
        pyramid.classify(maps)


def test_odd_sizes_are_padded(small):
    """The part of the map far from the padding is that of the image with its border repeated."""
    images = torch.rand(1, 3, 50, 70)
    maps = small(images)
    assert maps.covered == (64, 96)
    padded = torch.nn.functional.pad(images, (0, 26, 0, 14), mode='replicate')
    torch.testing.assert_close(small(padded).maps[0], maps.maps[0])


def test_bytes_are_colours_from_0_to_1(small):
    images = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    torch.testing.assert_close(small(images).maps[0], small(images / 255).maps[0])


def test_no_images(small):
    maps = small(torch.zeros(0, 3, 40, 40, dtype=torch.uint8))
    assert maps.maps[0].shape == (0, 8, 16, 16)
    assert maps.covered == (64, 64)


def test_frozen_stays_as_it_is():
    pyramid = FeaturePyramid('resnet18', channels=8, frozen=True).train()
    before = {name: value.clone() for name, value in pyramid.state_dict().items()}
    pyramid(torch.rand(2, 3, 32, 32))
    assert not any(p.requires_grad for p in pyramid.parameters())
    for name, value in pyramid.state_dict().items():
        torch.testing.assert_close(value, before[name])


def test_half_precision_is_close(small, monkeypatch):
    images = torch.rand(2, 3, 64, 64)
    exact = small(images).maps[0]
    small.use_amp = True
    found = {}
    try:
        for is_fast in (False, True):
            monkeypatch.setattr(fpn, 'multiplies_bfloat16', lambda device, fast=is_fast: fast)
            found[is_fast] = small(images).maps[0]
    finally:
        small.use_amp = False
    assert found[False].equal(exact)  # processors that only imitate bfloat16 go without it
    rough = found[True]
    assert rough.dtype == torch.float32
    assert not rough.equal(exact)
    assert (rough - exact).norm() < 0.05 * exact.norm()


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'backbone': 'resnet17'}, "no model 'resnet17'"),
        ({'backbone': 'vgg11'}, 'nodes of its four stages'),
        ({'backbone': {'type': 'timm', 'name': 'resnet17'}}, "no model 'resnet17'"),
        ({'backbone': {'type': 'timm', 'name': 'resnet18', 'size': 3}}, 'unknown settings'),
        ({'backbone': 'resnet18', 'fuse': 'max'}, 'fuse'),
        ({'backbone': 'resnet18', 'fuse': 'concat', 'num_classes': 3}, 'summed map'),
    ],
)
def test_bad_settings(arguments, message):
    with pytest.raises(ValueError, match=message):
        FeaturePyramid(**arguments)


def test_missing_weights():
    with pytest.raises(FileNotFoundError, match=r'nothing\.pth'):
        build_fpn_backbone('resnet18', 'nothing.pth')


def test_bad_images(small):
    images = torch.rand(2, 3, 32, 32)
    images[1, 0, 3, 3] = torch.nan
    with pytest.raises(ValueError, match='image 1 of 2'):
        small(images)
    with pytest.raises(ValueError, match=r'\(V, 3, H, W\)'):
        small(torch.rand(3, 32, 32))
    with pytest.raises(ValueError, match='floating point'):
        extract_multiscale_features(torch.zeros(1, 3, 32, 32, dtype=torch.uint8), small.backbone_2d)
    with pytest.raises(ValueError, match='gives no res2'):
        extract_multiscale_features(torch.zeros(1, 3, 32, 32), torch.nn.Identity())
