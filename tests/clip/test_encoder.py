"""The encoder against open_clip itself and slow plain twins, with random weights."""

import re
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from oneformer3d.clip.attention import neighbourhood_window
from oneformer3d.clip.encoder import ClipEncoder, prepare_images
from oneformer3d.clip.tags import answers, find_tag
from oneformer3d.clip.towers import position_table, resize_positions
from oneformer3d.clip.weights import weights_digest
from oneformer3d.lifting.pixel_shuffle import pixel_shuffle_features
from tests.helpers.small_clips import SMALL_RESNET, SMALL_VIT, random_images, small_encoder


def normalised(images: torch.Tensor, encoder: ClipEncoder) -> torch.Tensor:
    return (images.float() / 255 - encoder.mean) / encoder.std


@pytest.mark.parametrize('config', [SMALL_VIT, SMALL_RESNET])
@pytest.mark.parametrize('attn_mode', ['vanilla', 'maskclip', 'sclip', 'naclip'])
def test_the_image_embedding_is_clips_own_in_every_mode(config: dict, attn_mode: str) -> None:
    size = config['vision_cfg']['image_size']
    encoder = small_encoder(config, attn_mode=attn_mode)
    images = random_images(2, size, size)
    expected = encoder.clip.encode_image(normalised(images, encoder))
    torch.testing.assert_close(encoder(images).clip_global, expected, rtol=1e-4, atol=1e-5)


def test_vanilla_tokens_are_open_clips() -> None:
    encoder = small_encoder(layers=(0, 1, 2))
    images = random_images()
    expected = encoder.clip.forward_intermediates(
        normalised(images, encoder),
        image_indices=[0, 1, 2],
        normalize_intermediates=True,
        image_output_fmt='NCHW',
        intermediates_only=True,
    )['image_intermediates']
    torch.testing.assert_close(encoder(images).feat, torch.cat(expected, 1), rtol=1e-4, atol=1e-5)


def test_layers_are_joined_in_the_order_asked_for() -> None:
    encoder = small_encoder(layers=(2, 0))
    images = random_images(1)
    both = encoder(images).feat
    encoder.layers = (0,)
    torch.testing.assert_close(both[:, 32:], encoder(images).feat)


def slow_last_block(visual: torch.nn.Module, tokens: torch.Tensor, mode: str) -> torch.Tensor:
    """One image, one head and one token after another, as the papers write it."""
    block = visual.transformer.resblocks[-1]
    heads, width = block.attn.num_heads, tokens.shape[-1]
    size = width // heads
    normed = block.ln_1(tokens)
    projected = normed @ block.attn.in_proj_weight.t() + block.attn.in_proj_bias
    q, k, v = projected.split(width, dim=-1)
    columns = visual.grid_size[1]
    mixed = torch.zeros_like(v)
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        for image in range(len(tokens)):
            queries, keys, values = (x[image, :, part] for x in (q, k, v))
            for token in range(1, tokens.shape[1]):
                if mode == 'maskclip':
                    weight = F.one_hot(torch.tensor(token), len(keys)).float()
                elif mode == 'sclip':
                    weight = (queries @ queries[token] / size**0.5).softmax(0)
                    weight = weight + (keys @ keys[token] / size**0.5).softmax(0)
                else:
                    logits = keys @ keys[token] / size**0.5
                    for other in range(1, len(keys)):
                        down = (token - 1) // columns - (other - 1) // columns
                        right = (token - 1) % columns - (other - 1) % columns
                        logits[other] += np.exp(-(down**2 + right**2) / (2 * 5.0**2))
                    weight = logits.softmax(0)
                mixed[image, token, part] = weight @ values
    update = mixed @ block.attn.out_proj.weight.t() + block.attn.out_proj.bias
    if mode == 'naclip':
        return update[:, 1:]
    tokens = tokens + update
    return (tokens + block.mlp(block.ln_2(tokens)))[:, 1:]


@pytest.mark.parametrize('attn_mode', ['maskclip', 'sclip', 'naclip'])
@pytest.mark.parametrize('mode', ['tokens', 'clip'])
def test_other_attention_equals_a_slow_twin(attn_mode: str, mode: str) -> None:
    encoder = small_encoder(mode=mode, attn_mode=attn_mode)
    visual, images = encoder.visual, random_images()
    with torch.no_grad():
        tokens = visual._embeds(normalised(images, encoder))
        for block in visual.transformer.resblocks[:-1]:
            tokens = block(tokens)
        expected = visual.ln_post(slow_last_block(visual, tokens, attn_mode))
        if mode == 'clip':
            expected = F.normalize(expected @ visual.proj, dim=-1)
    expected = expected.transpose(1, 2).reshape(2, -1, 6, 6)
    torch.testing.assert_close(encoder(images).feat, expected, rtol=1e-4, atol=1e-5)


def test_custom_attention_blocks_give_the_same_tokens() -> None:
    """open_clip's own attention module keeps the same parameters in the same layout."""
    custom = {**SMALL_VIT, 'vision_cfg': {**SMALL_VIT['vision_cfg'], 'block_type': 'custom'}}
    plain, other = small_encoder(attn_mode='sclip'), small_encoder(custom, attn_mode='sclip')
    other.clip.load_state_dict(plain.clip.state_dict())
    images = random_images()
    torch.testing.assert_close(plain(images).feat, other(images).feat, rtol=1e-4, atol=1e-5)
    scaled = {**custom, 'vision_cfg': {**custom['vision_cfg'], 'qk_norm': True}}
    with pytest.raises(ValueError, match='plain attention'):
        small_encoder(scaled, attn_mode='sclip')(images)


@pytest.mark.parametrize(('axis', 'step'), [(2, 8), (3, 8)])
def test_shifting_the_image_a_patch_shifts_the_map_along_the_same_axis(
    axis: int, step: int
) -> None:
    encoder = small_encoder(input_size=(48, 64), layers=0)
    with torch.no_grad():  # positions and mixing aside, a patch only sees itself
        encoder.visual.positional_embedding.zero_()
        encoder.visual.transformer.resblocks[0].attn.out_proj.weight.zero_()
    images = random_images(1, 48, 64)
    moved = encoder(images.roll(step, dims=axis)).feat
    torch.testing.assert_close(moved, encoder(images).feat.roll(1, dims=axis))


def test_a_spot_lights_up_its_own_cell_of_a_non_square_map() -> None:
    encoder = small_encoder(SMALL_RESNET, input_size=(96, 160), layers='layer3')
    assert encoder.grid == (6, 10)
    images = torch.zeros(2, 3, 96, 160)
    images[1, :, 66:78, 98:110] = 1  # centre (72, 104): row 4.5 - 0.5, column 6.5 - 0.5
    plain, spotted = encoder(images).feat
    change = (plain - spotted).abs().sum(0)
    assert divmod(int(change.argmax()), 10) == (4, 6)


def test_a_squashed_image_keeps_its_corners() -> None:
    """An image of four colours fills the map's quarters, whatever its aspect."""
    encoder = small_encoder(input_size=48, layers=0)
    image = torch.zeros(1, 3, 60, 200)
    image[:, 0, :30], image[:, 1, :, 100:] = 1, 1
    small = prepare_images(image, (48, 48), encoder.mean, encoder.std) * encoder.std + encoder.mean
    assert small[0, 0, 4, 4] > 0.99
    assert small[0, 0, 44, 4] < 0.01
    assert small[0, 1, 4, 44] > 0.99
    assert small[0, 1, 4, 4] < 0.01


def test_resizing_is_pillows() -> None:
    image = random_images(1, 60, 80)
    pillow = Image.fromarray(image[0].permute(1, 2, 0).numpy()).resize((32, 48), Image.BICUBIC)
    zero, one = torch.zeros(3, 1, 1), torch.ones(3, 1, 1)
    ours = prepare_images(image, (48, 32), zero, one)[0].permute(1, 2, 0) * 255
    assert np.abs(ours.numpy() - np.asarray(pillow)).max() < 1.01  # its whole numbers


def test_float_and_byte_images_are_the_same() -> None:
    encoder, images = small_encoder(), random_images(2, 40, 70)
    torch.testing.assert_close(encoder(images).feat, encoder(images.double() / 255).feat)


def test_native_positions_are_left_alone_and_larger_ones_are_open_clips() -> None:
    table, source = position_table(small_encoder().visual)
    assert resize_positions(table, source, (6, 6)) is table
    state = {'visual.positional_embedding': table.detach().clone()}
    larger = {**SMALL_VIT, 'vision_cfg': {**SMALL_VIT['vision_cfg'], 'image_size': (64, 80)}}
    open_clip.model.resize_pos_embed(state, small_encoder(larger).clip)
    expected = state['visual.positional_embedding']
    torch.testing.assert_close(resize_positions(table, source, (8, 10)), expected)
    with pytest.raises(ValueError, match='37 rows'):
        resize_positions(table, (5, 5), (6, 6))


def test_non_square_input_equals_a_model_built_for_it() -> None:
    config = {**SMALL_VIT, 'vision_cfg': {**SMALL_VIT['vision_cfg'], 'image_size': (64, 80)}}
    built, ours = small_encoder(config), small_encoder(input_size=(64, 80))
    state = {key: value.clone() for key, value in ours.clip.state_dict().items()}
    open_clip.model.resize_pos_embed(state, built.clip)
    built.clip.load_state_dict(state)
    images = random_images(2, 64, 80)
    torch.testing.assert_close(ours(images).feat, built(images).feat, rtol=1e-4, atol=1e-5)
    assert ours(images).feat.shape == (2, 32, 8, 10)


def test_resized_tables_are_kept_and_follow_the_weights() -> None:
    encoder = small_encoder(input_size=64)
    first = encoder.positions((8, 8))
    assert encoder.positions((8, 8)) is first
    with torch.no_grad():
        encoder.visual.positional_embedding.mul_(2)
    torch.testing.assert_close(encoder.positions((8, 8)), 2 * first)


def test_resnet_maps_are_the_layers_own() -> None:
    encoder = small_encoder(SMALL_RESNET, layers=('layer3', 'layer4'))
    images = random_images(2, 96, 96)
    visual = encoder.visual
    with torch.no_grad():
        stages = visual.forward_intermediates(normalised(images, encoder), indices=[3, 4])
    layer3, layer4 = stages['image_intermediates']
    feat = encoder(images).feat
    assert feat.shape == (2, encoder.num_channels, *encoder.grid)
    torch.testing.assert_close(feat[:, : layer3.shape[1]], layer3, rtol=1e-4, atol=1e-5)
    enlarged = F.interpolate(layer4, scale_factor=2, mode='bilinear')
    torch.testing.assert_close(feat[:, layer3.shape[1] :], enlarged, rtol=1e-4, atol=1e-5)


def test_resnet_map_averages_to_the_embedding_where_attention_is_even() -> None:
    """With no queries and no positions the pool is the mean of its dense projection."""
    encoder = small_encoder(SMALL_RESNET, mode='clip')
    pool = encoder.visual.attnpool
    with torch.no_grad():
        for parameter in (pool.q_proj.weight, pool.q_proj.bias, pool.positional_embedding):
            parameter.zero_()
    lengths = []
    hook = pool.c_proj.register_forward_hook(lambda _, __, output: lengths.append(output))
    features = encoder(random_images(2, 96, 96))
    hook.remove()
    dense = lengths[-1]  # before it was scaled to unit vectors
    torch.testing.assert_close(features.clip_global, dense.mean(1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        features.feat.flatten(2).transpose(1, 2), F.normalize(dense, dim=-1), rtol=1e-4, atol=1e-5
    )


def test_it_is_frozen_and_stays_in_evaluation_mode() -> None:
    encoder = small_encoder(SMALL_RESNET)
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    torch.nn.Sequential(encoder).train()
    assert not any(module.training for module in encoder.modules())
    before = weights_digest(encoder.visual)
    assert not encoder(random_images(2, 96, 96)).feat.requires_grad
    assert weights_digest(encoder.visual) == before  # running statistics included


def test_gradients_reach_blocks_that_are_released() -> None:
    encoder = small_encoder(attn_mode='sclip')
    block = encoder.visual.transformer.resblocks[-1].requires_grad_(True)
    encoder(random_images()).feat.square().sum().backward()
    assert block.mlp.c_fc.weight.grad.abs().sum() > 0


@pytest.mark.parametrize('config', [SMALL_VIT, SMALL_RESNET])
def test_types_of_map_and_computation(config: dict) -> None:
    size = config['vision_cfg']['image_size']
    single = small_encoder(config)
    state, images = single.clip.state_dict(), random_images(2, size, size)
    reference = single(images)
    for dtype, computed, tolerance in (
        ('fp16', torch.float32, 1e-3),
        ('bf16', torch.bfloat16, 0.1),
    ):
        encoder = ClipEncoder(config, weights='none', dtype=dtype)
        encoder.clip.load_state_dict(state)
        assert encoder.compute_dtype == computed
        assert next(encoder.visual.parameters()).dtype == computed
        features = encoder(images)
        assert features.feat.dtype == torch.float16
        assert features.clip_global.dtype == torch.float32
        error = (features.feat.float() - reference.feat).norm() / reference.feat.norm()
        assert error < tolerance
    asked = ClipEncoder(config, weights='none', dtype='fp16', compute_dtype='bf16')
    assert asked.compute_dtype == torch.bfloat16


def test_large_values_do_not_become_infinite_in_half_precision() -> None:
    encoder = small_encoder(SMALL_RESNET, dtype='fp16')
    with torch.no_grad():
        encoder.visual.layer3[-1].bn3.weight.fill_(1e6)
    feat = encoder(random_images(1, 96, 96)).feat
    assert feat.isfinite().all()
    assert feat.max() == 65504


def test_the_stamp_tells_encoders_apart_and_describes_the_stored_map() -> None:
    encoder = small_encoder(input_size=(64, 80), dtype='fp16')
    stored = pixel_shuffle_features(encoder(random_images()).feat)
    stamp = encoder.stamp(pixel_shuffle=2)
    assert (stamp.channels, *stamp.grid) == tuple(stored.shape[1:])
    assert stamp.dtype == str(stored.dtype).removeprefix('torch.')
    assert stamp.layer == 'block2'
    digests = {ClipEncoder(SMALL_VIT, weights='none').weights_digest for _ in range(2)}
    assert len(digests) == 2


def test_missing_weights_are_an_immediate_message(monkeypatch, tmp_path) -> None:
    """Without a network a download would try again for minutes; here nothing is tried."""
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path))
    monkeypatch.setattr('socket.socket.connect', lambda *_: pytest.fail('opened a connection'))
    start = time.perf_counter()
    with pytest.raises(FileNotFoundError, match=r'laion2b_s34b_b88k.*ViT-B-16.*models--laion'):
        ClipEncoder()
    with pytest.raises(FileNotFoundError, match=r'nowhere\.pt'):
        ClipEncoder(weights='/nowhere.pt')
    assert time.perf_counter() - start < 2


def test_a_tag_is_found_in_the_hub_cache(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path))
    repository = tmp_path / 'models--laion--CLIP-ViT-B-16-laion2B-s34B-b88K'
    snapshot = repository / 'snapshots' / 'abc'
    snapshot.mkdir(parents=True)
    (repository / 'refs').mkdir()
    (repository / 'refs' / 'main').write_text('abc')
    (snapshot / 'open_clip_pytorch_model.bin').write_bytes(b'')
    assert find_tag('ViT-B-16', 'laion2b_s34b_b88k') == snapshot / 'open_clip_pytorch_model.bin'


def test_offline_says_which_file_to_put_where(monkeypatch, tmp_path) -> None:
    """Also where the download is allowed: a host without an answer is no reason to wait."""
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path))
    monkeypatch.setenv('HOME', str(tmp_path))

    def refused(*_):
        raise OSError('unreachable')

    monkeypatch.setattr('socket.getaddrinfo', refused)
    start = time.perf_counter()
    with pytest.raises(FileNotFoundError, match=r'huggingface\.co does not answer') as error:
        find_tag('ViT-B-16', 'laion2b_s34b_b88k', allow_download=True)
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)
    with pytest.raises(FileNotFoundError, match='HF_HUB_OFFLINE is set'):
        find_tag('ViT-B-16', 'laion2b_s34b_b88k', allow_download=True)
    assert time.perf_counter() - start < 1

    # what the message says helps
    place = Path(re.search(r'put it at (\S+),', str(error.value))[1])
    place.parent.mkdir(parents=True)
    place.write_bytes(b'')
    assert find_tag('ViT-B-16', 'laion2b_s34b_b88k', allow_download=True) == place


def test_a_host_that_says_no_has_answered() -> None:
    class Refusing(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_error(404)

        def log_message(self, *_):
            pass

    server = HTTPServer(('127.0.0.1', 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        assert answers(f'http://127.0.0.1:{server.server_port}/x')
    finally:
        server.shutdown()
        server.server_close()
    assert not answers(f'http://127.0.0.1:{server.server_port}/x')


def test_files_of_weights(tmp_path) -> None:
    encoder, images = small_encoder(), random_images()
    state = encoder.clip.state_dict()
    torch.save(state, tmp_path / 'plain.pt')
    torch.save({'state_dict': {f'module.{k}': v for k, v in state.items()}}, tmp_path / 'ddp.pt')
    for name in ('plain.pt', 'ddp.pt'):
        loaded = ClipEncoder(SMALL_VIT, weights=tmp_path / name)
        torch.testing.assert_close(loaded(images).feat, encoder(images).feat)
        assert loaded.weights_digest == weights_digest(encoder.visual)


def test_openai_files_get_quick_gelu(tmp_path) -> None:
    state = {k: v.half() for k, v in small_encoder().clip.state_dict().items()}
    extras = dict.fromkeys(('input_resolution', 'context_length', 'vocab_size'), torch.tensor(1))
    torch.save({**state, **extras}, tmp_path / 'openai.pt')
    encoder = ClipEncoder(SMALL_VIT, weights=tmp_path / 'openai.pt')
    activations = [type(block.mlp.gelu) for block in encoder.visual.transformer.resblocks]
    assert set(activations) == {open_clip.transformer.QuickGELU}
    torch.save(state, tmp_path / 'plain.pt')
    plain = ClipEncoder(SMALL_VIT, weights=tmp_path / 'plain.pt')
    assert isinstance(plain.visual.transformer.resblocks[0].mlp.gelu, torch.nn.GELU)


def test_torchscript_archives_as_openai_publishes_them(tmp_path) -> None:
    encoder, images = small_encoder(quick_gelu=True), random_images()
    scripted = torch.jit.trace_module(
        encoder.clip, {'encode_image': torch.rand(1, 3, 48, 48)}, check_trace=False
    )
    scripted.save(str(tmp_path / 'ViT.pt'))
    loaded = ClipEncoder(SMALL_VIT, weights=tmp_path / 'ViT.pt')
    torch.testing.assert_close(loaded(images).feat, encoder(images).feat, rtol=1e-4, atol=1e-5)


def test_bad_settings_and_files_name_the_fault(tmp_path) -> None:
    cases = [
        (dict(model='ViT-Z-1'), 'ViT-Z-1'),
        (dict(model='ViT-B-16', weights='no_such_tag'), 'no_such_tag'),
        (dict(mode='other'), 'mode'),
        (dict(attn_mode='other'), 'attn_mode'),
        (dict(input_size=50), 'multiples of 8'),
        (dict(layers=3), 'layers'),
        (dict(layers=()), 'layers'),
        (dict(layers=(0, 0)), 'different'),
        (dict(mode='clip', layers=0), 'last layer'),
        (dict(dtype='int8'), 'dtype'),
        (dict(model={'embed_dim': 4}), 'needs'),
        (dict(model='coca_ViT-B-32'), 'supported'),
        (dict(model='ViT-B-16-SigLIP'), 'supported'),
    ]
    for settings, fault in cases:
        with pytest.raises(ValueError, match=fault):
            ClipEncoder(**{'model': SMALL_VIT, 'weights': 'none', **settings})
    with pytest.raises(ValueError, match='multiples of 16'):
        small_encoder(SMALL_RESNET, input_size=(96, 120))
    (tmp_path / 'bad.pt').write_bytes(b'not weights')
    torch.save({'visual.proj': torch.zeros(3)}, tmp_path / 'other.pt')
    for name in ('bad.pt', 'other.pt'):
        with pytest.raises(ValueError, match=name):
            ClipEncoder(SMALL_VIT, weights=tmp_path / name)


def test_bad_images() -> None:
    encoder = small_encoder()
    for images in (
        torch.zeros(3, 48, 48),
        torch.zeros(1, 1, 48, 48),
        torch.zeros(1, 3, 4, 4).int(),
    ):
        with pytest.raises(ValueError, match='images'):
            encoder(images)
    with pytest.raises(ValueError, match='0–1'):
        encoder(torch.full((1, 3, 48, 48), 200.0))


def test_the_window_of_naclip_peaks_on_the_patch_itself() -> None:
    window = neighbourhood_window((3, 5), std=2.0)
    assert (window.diagonal()[1:] == 1).all()
    assert not window[0].any()
    assert not window[:, 0].any()
    np.testing.assert_allclose(window[1 + 7, 1 + 5], np.exp(-4 / 8), rtol=1e-6)  # two columns off
    np.testing.assert_allclose(window[1 + 7, 1 + 2], np.exp(-1 / 8), rtol=1e-6)  # one row off
