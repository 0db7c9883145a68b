"""STMixer's published names: each one of ours is filled, by the tensor that it is."""

import pytest
import torch
import torch.nn.functional as F

from oneformer3d.stm.boxes import box_embedding, log_iof, whole_images
from oneformer3d.stm.decoder import STMDecoder
from oneformer3d.stm.published import decoder_state, load_stmixer

D, HEADS, FFN, POINTS, FRAMES, MORE, GROUPS, QUERIES, ACTIONS = 16, 2, 24, 4, 4, 2, 2, 5, 3
SMALL = dict(
    num_stages=2, num_queries=QUERIES, query_dim=D, num_heads=HEADS, feedforward_channels=FFN,
    spatial_points=POINTS, temporal_points=FRAMES, out_multiplier=MORE, n_groups=GROUPS,
    num_classes_action=ACTIONS,
)  # fmt: skip


def published(num_stages: int = 2) -> dict[str, torch.Tensor]:
    """Random tensors by the names and shapes of github.com/MCG-NJU/STMixer."""
    generator = torch.Generator().manual_seed(0)
    state = {}

    def add(name: str, *shape: int) -> None:
        state['stm_head.' + name] = 0.1 * torch.randn(shape, generator=generator)

    def linear(name: str, into: int, out: int) -> None:
        add(f'{name}.weight', out, into)
        add(f'{name}.bias', out)

    add('init_spatial_queries.weight', QUERIES, D)
    add('init_temporal_queries.weight', QUERIES, D)
    for number in range(num_stages):
        stage = f'decoder_stages.{number}'
        add(f'{stage}.iof_tau', HEADS)
        for kind, points in (('s', POINTS), ('t', FRAMES)):
            add(f'{stage}.attention_{kind}.attn.in_proj_weight', 3 * D, D)
            add(f'{stage}.attention_{kind}.attn.in_proj_bias', 3 * D)
            linear(f'{stage}.attention_{kind}.attn.out_proj', D, D)
            linear(f'{stage}.ffn_{kind}.layers.0.0', D, FFN)
            linear(f'{stage}.ffn_{kind}.layers.1', FFN, D)
            for norm in ('attention_norm', 'ffn_norm', 'samplingmixing.norm'):
                add(f'{stage}.{norm}_{kind}.weight', D)
                add(f'{stage}.{norm}_{kind}.bias', D)
            mixing, width = f'{stage}.samplingmixing.adaptive_mixing_{kind}', D // GROUPS
            parameters = width * width + points * points * MORE
            linear(f'{mixing}.parameter_generator.0', D, GROUPS * parameters)
            linear(f'{mixing}.out_proj', width * points * MORE * GROUPS, D)
        linear(f'{stage}.samplingmixing.offset_generator.0', D, POINTS * GROUPS * 3)
        heads = (
            ('human_cls_fcs', 'human_fc_cls', D, 2),
            ('reg_fcs', 'fc_reg', D, 4),
            ('action_cls_fcs', 'fc_action', 2 * D, ACTIONS),
        )
        for hidden, last, wide, out in heads:
            linear(f'{stage}.{hidden}.0', wide, wide)
            linear(f'{stage}.{hidden}.1', wide, wide)
            state[f'stm_head.{stage}.{hidden}.1.weight'] = torch.ones(wide)
            linear(f'{stage}.{last}', wide, out)
    state['stm_head.criterion.empty_weight'] = torch.ones(2)
    state['backbone.slow.conv.weight'] = torch.ones(2)
    return state


def test_every_parameter_is_filled(tmp_path):
    torch.save({'model': published()}, tmp_path / 'stmixer.pth')
    decoder = STMDecoder(**SMALL)
    load_stmixer(decoder, tmp_path / 'stmixer.pth')  # strict: nothing missing, nothing left over
    expected = published()['stm_head.decoder_stages.1.fc_action.weight']
    assert torch.equal(decoder.stages[1].action_head.weight, expected)
    for attention in (decoder.stages[0].attention_s, decoder.stages[0].attention_t):
        assert torch.equal(attention.iof_tau, published()['stm_head.decoder_stages.0.iof_tau'])


def test_a_loaded_layer_computes_what_its_names_say():
    """Spatial attention of the first stage by the published names, written out."""
    state = {name.removeprefix('stm_head.'): value for name, value in published().items()}
    decoder = STMDecoder(**SMALL)
    decoder.load_state_dict(decoder_state(state))
    attention = decoder.stages[0].attention_s

    whwh = torch.tensor([[64.0, 48.0, 64.0, 48.0]])
    xyzr = whole_images(whwh)[:, None, None].expand(1, QUERIES, 1, 4) + torch.rand(1, QUERIES, 1, 4)
    queries = torch.randn(1, QUERIES, D)
    position, bias = box_embedding(xyzr.mean(2), D), log_iof(xyzr)

    x = (queries + position)[0]  # (N, D): the embedding is in the residual, too
    name = 'decoder_stages.0.attention_s.attn'
    packed = x @ state[f'{name}.in_proj_weight'].T + state[f'{name}.in_proj_bias']
    q, k, v = (part.unflatten(-1, (HEADS, -1)).transpose(0, 1) for part in packed.chunk(3, -1))
    scores = q @ k.transpose(1, 2) / (D // HEADS) ** 0.5
    scores = scores + bias * state['decoder_stages.0.iof_tau'][:, None, None]
    mixed = (scores.softmax(-1) @ v).transpose(0, 1).flatten(1)
    out = F.linear(mixed, state[f'{name}.out_proj.weight'], state[f'{name}.out_proj.bias'])
    norm = 'decoder_stages.0.attention_norm_s'
    expected = F.layer_norm(x + out, (D,), state[f'{norm}.weight'], state[f'{norm}.bias'])
    torch.testing.assert_close(attention(queries, position, bias)[0], expected)


def test_what_is_not_a_fitting_stmixer_is_refused(tmp_path):
    torch.save({'model': {'backbone.weight': torch.ones(2)}}, tmp_path / 'other.pth')
    with pytest.raises(ValueError, match=r'other\.pth: holds no STMixer decoder'):
        load_stmixer(STMDecoder(**SMALL), tmp_path / 'other.pth')
    torch.save({'model': published(1)}, tmp_path / 'short.pth')
    with pytest.raises(ValueError, match=r'short\.pth: a decoder of other sizes'):
        load_stmixer(STMDecoder(**SMALL), tmp_path / 'short.pth')
    with pytest.raises(ValueError, match='no such part of an STMixer stage'):
        decoder_state({'decoder_stages.0.novel.weight': torch.ones(2)})
