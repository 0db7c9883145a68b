"""The stand-alone decoder: sizes, what it starts as, frames, and wrong input."""

import pytest
import torch

from oneformer3d.stm.boxes import clip_sizes, whole_images
from oneformer3d.stm.decoder import STMDecoder, detections, num_parameters, resample_frames
from oneformer3d.stm.stage import AdaptiveSTSamplingMixing, AMStage, BoxAttention

SETTINGS = {
    'num_stages': 2,
    'num_queries': 5,
    'query_dim': 16,
    'featmap_strides': (4, 8),
    'num_heads': 2,
    'feedforward_channels': 16,
    'spatial_points': 3,
    'temporal_points': 3,
    'out_multiplier': 2,
    'n_groups': 2,
    'num_classes_object': 3,
    'num_classes_action': 4,
}


def maps(batch_size=2, channels=16, frames=3, size=(16, 24)):
    shape = (batch_size, channels, frames)
    return [torch.randn(*shape, size[0] // s, size[1] // s) for s in (4, 8)]


def test_parameters_of_the_defaults():
    """Per group 64 × 64 + 32 × 128 mixing weights, made from and projected back to 256 channels."""
    with torch.device('meta'):
        stage = AMStage(256)
    mixing = stage.sampling_mixing
    spatial = 257 * 4 * (64 * 64 + 32 * 128) + 64 * 128 * 4 * 256 + 256
    temporal = 257 * 4 * (64 * 64 + 4 * 16) + 64 * 16 * 4 * 256 + 256
    assert num_parameters(mixing.adaptive_mixing_s) == spatial
    assert num_parameters(mixing.adaptive_mixing_t) == temporal
    assert round(spatial / 1e6, 1) == 16.8
    assert round(temporal / 1e6, 1) == 5.3
    with torch.device('meta'):
        total = num_parameters(STMDecoder())
    assert total == 6 * num_parameters(stage) + 2 * 100 * 256
    assert round(total / 1e6) == 152


def test_boxes_start_as_the_whole_image_and_shapes():
    decoder = STMDecoder(**SETTINGS)
    outputs = decoder(maps(), (16, 24))
    assert len(outputs) == 2
    for output in outputs:
        assert output.cls_logits.shape == (2, 5, 3)
        assert output.action_logits.shape == (2, 5, 4)
        expected = whole_images(clip_sizes((16, 24), 2))[:, None, None].expand(2, 5, 1, 4)
        torch.testing.assert_close(output.xyzr, expected)  # the box heads start at zero
        prior = output.action_logits.sigmoid().mean()
        assert 0.003 < prior < 0.03


def randomise(decoder):
    """Weights of a decoder that was trained, so to say."""
    for parameter in decoder.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)


@pytest.mark.parametrize('per_frame_boxes', [False, True])
def test_every_parameter_learns(per_frame_boxes):
    decoder = STMDecoder(**SETTINGS, per_frame_boxes=per_frame_boxes)
    randomise(decoder)
    outputs = decoder(maps(), (16, 24))
    assert outputs[-1].xyzr.shape == (2, 5, 3 if per_frame_boxes else 1, 4)
    loss = sum(
        (o.cls_logits.sum() + o.action_logits.sum() + o.xyzr.square().sum()) for o in outputs
    )
    loss.backward()
    for name, parameter in decoder.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any(), name


def test_equal_boxes_in_every_frame_are_a_shared_box():
    mixing = AdaptiveSTSamplingMixing(3, 3, 2, 2, 16)
    torch.nn.init.normal_(mixing.sampling_offset_generator.weight, std=0.2)
    spatial, temporal = torch.randn(2, 5, 16), torch.randn(2, 5, 16)
    xyzr = torch.rand(2, 5, 4) * torch.tensor([24.0, 16.0, 2.0, 1.0])
    values = maps()
    shared = mixing(values, (4, 8), spatial, temporal, xyzr)
    frames = xyzr[:, :, None].expand(-1, -1, 3, -1)
    for got, expected in zip(mixing(values, (4, 8), spatial, temporal, frames), shared):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_a_box_of_one_frame_moves_the_sampling_of_that_frame_only():
    mixing = AdaptiveSTSamplingMixing(3, 3, 2, 2, 16)
    sampled = []
    mixing.adaptive_mixing_t.register_forward_pre_hook(lambda _, given: sampled.append(given[0]))
    query, values = torch.randn(2, 5, 16), maps()
    xyzr = torch.tensor([12.0, 8.0, 2.0, 0.0]).repeat(2, 5, 3, 1)
    mixing(values, (4, 8), query, query, xyzr)
    xyzr[:, :, 1, 0] += 4
    mixing(values, (4, 8), query, query, xyzr)
    changed = (sampled[0] != sampled[1]).any(-1).flatten(0, 2).any(0)
    assert changed.tolist() == [False, True, False]


def test_attention_prefers_boxes_that_cover_ones_own():
    attention = BoxAttention(16, 2)
    bias = torch.full((1, 3, 3), -16.0).masked_fill(torch.eye(3, dtype=torch.bool), 0.0)
    with torch.no_grad():
        attention.iof_tau.fill_(4.0)
    queries, position = torch.randn(1, 3, 16), torch.zeros(1, 3, 16)
    out = attention(queries, position, bias)
    queries[0, 2] += 1.0  # what does not overlap does not reach the others
    torch.testing.assert_close(attention(queries, position, bias)[0, :2], out[0, :2])
    free = attention(queries, position, torch.zeros(1, 3, 3))
    assert not torch.allclose(free[0, :2], out[0, :2])


def test_detections():
    output = STMDecoder(**SETTINGS)(maps(), (16, 24))[-1]
    logits = torch.full_like(output.cls_logits, -9.0)
    logits[..., -1] = 9.0
    logits[0, 3, 0] = 20.0
    found = detections(output._replace(cls_logits=logits))
    assert [len(boxes) for boxes, _, _ in found] == [1, 3]  # none is sure: the best three
    assert float(found[0][1]) > 0.99
    assert found[0][2].shape == (1, 4)


def test_a_batch_of_clips_of_different_sizes_is_the_clips_alone():
    """A padded clip in a batch is decoded as it is on a canvas of its own."""
    decoder = STMDecoder(**SETTINGS).eval()
    randomise(decoder)
    large, small = maps(), [x[:1, ..., :2, :4] for x in maps()]
    sizes = torch.tensor([[24.0, 16.0, 24.0, 16.0], [13.0, 7.0, 13.0, 7.0]])
    padded = [x.clone() for x in large]
    for x in padded:
        x[1] = 0
    padded[0][1, ..., :2, :4] = small[0][0]
    padded[1][1, ..., :1, :2] = small[1][0, ..., :1, :2]
    together = decoder(padded, sizes)[-1]
    for i in range(2):
        alone = decoder([x[i : i + 1] for x in padded], sizes[i : i + 1])[-1]
        torch.testing.assert_close(together.xyzr[i], alone.xyzr[0], atol=1e-4, rtol=1e-4)
    first = decoder([x[:1] for x in padded], (16, 24))[-1]
    torch.testing.assert_close(first.xyzr[0], together.xyzr[0], atol=1e-4, rtol=1e-4)
    starts = whole_images(sizes)
    assert not torch.equal(starts[0], starts[1])


def test_other_numbers_of_frames_are_brought_to_the_decoders():
    """Maps that are linear in time are read at evenly spread moments; equal frames stay equal."""
    ramp = torch.arange(8.0).reshape(1, 1, 8, 1, 1).expand(2, 3, 8, 4, 5)
    torch.testing.assert_close(
        resample_frames(ramp, 4)[0, 0, :, 0, 0], torch.tensor([0.5, 2.5, 4.5, 6.5])
    )
    decoder = STMDecoder(**SETTINGS).eval()
    randomise(decoder)
    still = [x[:, :, :1] for x in maps()]
    three = decoder([x.expand(-1, -1, 3, -1, -1) for x in still], (16, 24))[-1]
    five = decoder([x.expand(-1, -1, 5, -1, -1) for x in still], (16, 24))[-1]
    torch.testing.assert_close(three.action_logits, five.action_logits, atol=1e-4, rtol=1e-4)


def test_wrong_input_is_named():
    decoder = STMDecoder(**SETTINGS)
    with pytest.raises(ValueError, match=r'strides \(4, 8\), got 1 maps'):
        decoder(maps()[:1], (16, 24))
    with pytest.raises(ValueError, match='made for 3 frames, got maps of 2'):
        STMDecoder(**SETTINGS, per_frame_boxes=True)(maps(frames=2), (16, 24))
    with pytest.raises(ValueError, match='2 groups do not divide 15 channels'):
        decoder(maps(channels=15), (16, 24))
    with pytest.raises(ValueError, match='image size'):
        decoder(maps(), (0, 24))
    with pytest.raises(ValueError, match='3 groups do not divide'):
        STMDecoder(**{**SETTINGS, 'n_groups': 3})
    with pytest.raises(ValueError, match='query_dim=18'):
        STMDecoder(**{**SETTINGS, 'query_dim': 18})
    with pytest.raises(ValueError, match='at least one stage'):
        STMDecoder(**{**SETTINGS, 'num_stages': 0})
    mixing = decoder.stages[0].sampling_mixing
    query, boxes = torch.zeros(2, 5, 16), torch.zeros(2, 5, 2, 4)
    with pytest.raises(ValueError, match='boxes of 2 frames beside maps of 3'):
        mixing(maps(), (4, 8), query, query, boxes)
    with pytest.raises(ValueError, match='10 of 10 boxes are not finite'):
        mixing(maps(), (4, 8), query, query, torch.full((2, 5, 4), torch.nan))
    broken = maps()
    broken[0][:] = torch.nan
    randomise(decoder)
    with pytest.raises(ValueError, match='boxes are not finite'):
        decoder(broken, (16, 24))
