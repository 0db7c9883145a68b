"""The segmentor whose queries attend to object tokens: what it starts as, and what reaches it."""

import pytest
import torch

from oneformer3d.registry import MODELS
from oneformer3d.structures import DecoderScene
from tests.helpers.fusion_scenes import CHANNELS, batch, scene, segmentor_settings
from tests.helpers.small_models import small_settings


def token_segmentor(fused: bool = True, gate: float = 0.0, **changes) -> torch.nn.Module:
    """A small segmentor with object tokens; near is everything unless told otherwise."""
    torch.manual_seed(3)
    settings = segmentor_settings() if fused else small_settings()
    decoder = {'type': 'ObjectTokenDecoder', 'clip_channels': CHANNELS, 'radius': 9.0, **changes}
    model = MODELS.build({**settings, 'decoder': {**small_settings()['decoder'], **decoder}})
    with torch.no_grad():
        for weight in model.decoder.token_gates:
            weight.fill_(gate)
        torch.nn.init.normal_(model.decoder.no_token, std=0.5)
    return model


def logits(model, *scenes):
    inputs, samples = batch(*scenes)
    with torch.no_grad():
        output = model.eval()(inputs, samples, mode='tensor')
    return torch.cat([x.flatten() for key in ('cls_preds', 'masks') for x in output[key]])


@pytest.mark.parametrize('fused', [False, True])
def test_starts_as_the_plain_decoder_and_loads_its_weights(fused) -> None:
    plain = MODELS.build(segmentor_settings() if fused else small_settings())
    model = token_segmentor(fused)
    result = model.load_state_dict(plain.state_dict(), strict=False)
    assert not result.unexpected_keys
    assert all(
        key.startswith(('decoder.token_', 'decoder.no_token')) for key in result.missing_keys
    )
    assert torch.equal(logits(model, scene(0), scene(1)), logits(plain, scene(0), scene(1)))


def test_without_views_a_trained_decoder_is_the_plain_one() -> None:
    plain, model = MODELS.build(small_settings()), token_segmentor(fused=False, gate=0.7)
    model.load_state_dict(plain.state_dict(), strict=False)
    blind = scene(0, num_views=0)
    assert torch.equal(logits(model, blind), logits(plain, blind))
    assert not torch.allclose(logits(model, scene(0)), logits(plain, scene(0)), atol=1e-3)


@pytest.mark.parametrize('num_views', [0, 3])
def test_every_parameter_has_a_gradient_whatever_is_seen(num_views) -> None:
    model = token_segmentor(gate=0.5).train()
    inputs, samples = batch(scene(0, num_views=num_views), scene(1, num_views=num_views))
    total, _ = model.parse_losses(model(inputs, samples, mode='loss'))
    total.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        if num_views and name.startswith(('decoder.token_', 'decoder.no_token')):
            assert parameter.grad.abs().sum() > 0, name


def test_far_tokens_say_none() -> None:
    """With a tiny radius every query reads the learnt token alone, whatever the maps hold."""
    model = token_segmentor(fused=False, gate=0.7, radius=1e-6)
    points, views, sample = scene(0)
    other = type(views)(**{**vars(views), 'feat': views.feat.flip(0) + 1})
    first, second = logits(model, (points, views, sample)), logits(model, (points, other, sample))
    assert torch.equal(first, second)

    model.decoder.radius = 9.0
    first, second = logits(model, (points, views, sample)), logits(model, (points, other, sample))
    assert not torch.allclose(first, second, atol=1e-3)


def test_masked_pixels_are_not_read() -> None:
    model = token_segmentor(fused=False, gate=0.7)
    points, views, sample = scene(0)
    hidden, other = (
        type(views)(**{**vars(views), 'feat': feat, 'pixels_masked': True})
        for feat in (views.feat, views.feat.flip(0) + 1)
    )
    assert torch.equal(
        logits(model, (points, hidden, sample)), logits(model, (points, other, sample))
    )


def test_tokens_are_left_out_in_training_only() -> None:
    points, views, sample = scene(0)
    model = token_segmentor(token_dropout=0.5)
    where = DecoderScene(points, sample.gt_pts_seg.sp_pts_mask, views)
    num_superpoints = int(where.superpoints.max()) + 1
    every = len(model.decoder.eval()._tokens(where, num_superpoints)[0])
    left = len(model.decoder.train()._tokens(where, num_superpoints)[0])
    assert 0.2 * every < left < 0.8 * every


@pytest.mark.parametrize(
    ('changes', 'fault'),
    [
        ({'token_dropout': 1.0}, 'token_dropout'),
        ({'radius': 0.0}, 'radius'),
        ({'iter_pred': False, 'attn_mask': False}, 'iter_pred=True'),
    ],
)
def test_impossible_settings(changes, fault) -> None:
    with pytest.raises(ValueError, match=fault):
        token_segmentor(**changes)
