"""Fields: one path for training and queries, documented shapes, heads added later."""

import pytest
import torch

from oneformer3d.clip.text import encode_text
from oneformer3d.fields import (
    LERF,
    FeatureField,
    HashGridField,
    PanopticNeRF,
    SceneBox,
    SemanticNeRF,
    UniformSampler,
    render_rays,
)
from oneformer3d.fields.networks.feature_field import feature_width
from oneformer3d.fields.networks.field import trunc_exp
from oneformer3d.fields.networks.heads import InstanceHead, LanguageHead
from oneformer3d.tiny_clip.train import TinyClipSettings, build_tiny_clip, save_tiny_clip
from tests.helpers.analytic_fields import KnownField, random_rays

BOX = SceneBox(
    torch.tensor([[0.5, 0, 0, 1], [0, 0.5, 0, 0], [0, 0, 0.5, 0], [0, 0, 0, 1]]), torch.ones(3)
)
SMALL = dict(num_levels=2, log2_hashmap_size=8, base_resolution=4, max_resolution=8, hidden_dim=8)
GRID = dict(num_levels=2, features_per_level=2, log2_hashmap_size=8, start_res=4, max_res=8)


def directions(num: int) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(num, 3), dim=-1)


def test_semantic_nerf_has_the_published_layers() -> None:
    field = SemanticNeRF()
    assert [m.in_features for m in field.density_net if hasattr(m, 'in_features')] == [63] + [
        256
    ] * 3
    assert field.rgb_net[0].in_features == 256 + 27
    assert field.semantic_net[-1].out_features == field.num_classes == 20
    outputs = field(torch.rand(5, 3), directions(5))
    assert {name: tuple(value.shape) for name, value in outputs.items()} == {
        'density': (5,),
        'rgb': (5, 3),
        'semantics': (5, 20),
    }
    assert (outputs['density'] >= 0).all()
    assert 0 <= outputs['rgb'].min() <= outputs['rgb'].max() <= 1


@pytest.mark.parametrize(
    'field', [SemanticNeRF(hidden_dim=16), PanopticNeRF(hidden_dim=16), LERF(hidden_dim=16)]
)
def test_training_reaches_what_queries_read(field) -> None:
    """A loss of rendered semantics moves the very logits that a query returns."""
    points = torch.rand(6, 3)
    rendered = render_rays(field, random_rays(4), UniformSampler(8), heads=('semantics',))
    rendered.heads['semantics'][:, 0].sum().backward()
    trained = {name for name, p in field.named_parameters() if p.grad is not None}
    field.zero_grad()
    hidden = field.density(points)[1]
    field.heads(hidden, points, names=['semantics'])['semantics'].sum().backward()
    read = {name for name, p in field.named_parameters() if p.grad is not None}
    assert trained - read == {'density_head.weight', 'density_head.bias'}
    assert read <= trained


def test_panoptic_outputs_and_slots() -> None:
    field = PanopticNeRF(7, 9, 5, hidden_dim=16)
    outputs = field(torch.rand(4, 3), directions(4))
    assert set(outputs) == {'rgb', 'density', 'semantics', 'instance_features'}
    torch.testing.assert_close(outputs['instance_features'].norm(dim=-1), torch.ones(4))
    # a vector equal to an embedding belongs to its slot
    logits = field.instance_logits(field.instance_embeddings.weight)
    assert torch.equal(logits.argmax(-1), torch.arange(9))
    torch.testing.assert_close(logits.diagonal(), torch.full((9,), 1 / 0.07))


def test_lerf_encodes_text_only_when_given_some_and_never_saves_clip() -> None:
    clip = build_tiny_clip(TinyClipSettings(steps=1))
    width = clip.text_projection.shape[-1]
    field = LERF(clip, feature_dim=width, hidden_dim=16)
    before = set(field.state_dict())
    outputs = field(torch.rand(4, 3), directions(4), ['chair', 'a red table'])
    assert outputs['relevancy'].shape == (4, 2)
    assert 0 < outputs['relevancy'].min() <= outputs['relevancy'].max() < 1
    assert set(field.state_dict()) == before
    assert not any('clip' in name or 'visual' in name for name in before)
    torch.testing.assert_close(outputs['language_features'].norm(dim=-1), torch.ones(4))
    with pytest.raises(ValueError, match='text space'):
        LERF(clip, feature_dim=width + 1, hidden_dim=16).encode_text(['chair'])


def test_lerf_reads_clip_from_a_file(tmp_path) -> None:
    settings = TinyClipSettings(steps=1)
    clip = build_tiny_clip(settings).eval()
    save_tiny_clip(tmp_path / 'clip.pt', clip, settings, {}, {})
    field = LERF(tmp_path / 'clip.pt', feature_dim=clip.text_projection.shape[-1], hidden_dim=16)
    torch.testing.assert_close(field.encode_text(['chair']), encode_text(clip, ['chair']))


def test_language_depends_on_the_patch_size() -> None:
    head = LanguageHead(0, 6, 8, 1, grids=((4, 8), (8, 16)), log2_hashmap_size=8)
    positions = torch.rand(5, 3)
    small, large = (
        head(torch.zeros(5, 0), positions, patch_size=torch.tensor(s)) for s in (0.1, 1.0)
    )
    assert small.shape == (5, 6)
    assert not torch.allclose(small, large)
    # one after the other they are the same
    together = head.sample_sizes(torch.zeros(5, 0), positions, (0.1, 1.0))
    for at_once, alone in zip(together, (small, large), strict=True):
        torch.testing.assert_close(at_once, alone)


def test_feature_field_joins_grid_and_frequencies() -> None:
    field = FeatureField(feature_type='CLIP', log2_hashmap_size=8)
    assert field.encoding_dim == 132
    assert field.net[0].in_features == 132
    assert [m.out_features for m in field.net if hasattr(m, 'out_features')] == [64, 64, 768]
    assert field(torch.rand(2, 3) * 2 - 1).shape == (2, 768)
    assert FeatureField(12, use_pe=False, **GRID).encoding_dim == 4
    # the grid does take part
    positions = torch.rand(3, 3)
    before = field.encode(positions)
    field.grid.table.data += 1
    torch.testing.assert_close(field.encode(positions)[:, :96], before[:, :96] + 1)
    assert feature_width('DINO', None) == 384
    assert feature_width('ROBOPOINT', 5) == 5
    with pytest.raises(ValueError, match='feature_dim'):
        FeatureField(feature_type='ROBOPOINT')


def test_hash_field_names_its_feature_heads() -> None:
    field = HashGridField(3, 4, {'CLIP': 6, 'DINO': 5}, GRID, 7, ((4, 8),), scene_box=BOX, **SMALL)
    outputs = field(torch.zeros(2, 3), directions(2))
    assert {name: tuple(value.shape) for name, value in outputs.items()} == {
        'density': (2,),
        'rgb': (2, 3),
        'semantics': (2, 3),
        'instances': (2, 4),
        'features_clip': (2, 6),
        'features_dino': (2, 5),
        'language': (2, 7),
    }
    assert 'rgb' not in field(torch.zeros(2, 3))  # colour needs a direction
    one = HashGridField(0, features={'ROBOPOINT': 5}, feature_options=GRID, **SMALL)
    assert set(one.head_nets) == {'rgb', 'features'}
    assert one.num_classes == 0
    both = HashGridField(0, features={'DINOCLIP': None}, feature_options=GRID, **SMALL)
    assert both.head_nets['features_clip'].feature_dim == 768
    assert both.head_nets['features_dino'].feature_dim == 384


def test_density_is_zero_outside_the_box_unless_contracted() -> None:
    points = torch.tensor([[0.0, 0, 0], [100, 0, 0]])
    bounded, contracted = (
        HashGridField(2, contracted=c, scene_box=BOX, **SMALL).world_density(points)
        for c in (False, True)
    )
    assert bounded[0] > 0
    assert bounded[1] == 0
    assert (contracted > 0).all()


def test_a_head_added_later_learns_alone() -> None:
    field = HashGridField(3, scene_box=BOX, **SMALL)
    before = {name: value.clone() for name, value in field.state_dict().items()}
    field.add_head('features', FeatureField(4, **GRID))
    optimiser = torch.optim.Adam([p for p in field.parameters() if p.requires_grad], lr=0.1)
    outputs = render_rays(field, random_rays(8), UniformSampler(16))
    outputs.heads['features'].pow(2).sum().backward()
    optimiser.step()
    after = field.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert any('features' in name for name in after)
    with pytest.raises(ValueError, match='already'):
        field.add_head('features', InstanceHead(15, 4))


def test_the_scene_box_travels_with_the_state() -> None:
    field, other = (HashGridField(2, scene_box=box, **SMALL) for box in (BOX, None))
    other.load_state_dict(field.state_dict())
    points = torch.rand(5, 3)
    assert torch.equal(other.scene_box.to_unit(points), field.scene_box.to_unit(points))
    assert torch.equal(other.world_density(points), field.world_density(points))


def test_truncated_exp_is_finite_both_ways() -> None:
    x = torch.tensor([-200.0, 0.0, 3.0, 500.0], requires_grad=True)
    y = trunc_exp(x)
    y.sum().backward()
    torch.testing.assert_close(y[1:3], torch.tensor([1.0, 3.0]).exp() / torch.tensor([torch.e, 1]))
    assert torch.isfinite(y).all()
    assert torch.isfinite(x.grad).all()
    assert (x.grad > 0).all()
    inside = torch.randn(5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(trunc_exp, inside)
    assert trunc_exp(torch.zeros(2, dtype=torch.bfloat16)).dtype == torch.float32


def test_a_field_says_what_it_can_do() -> None:
    """Nobody has to look for methods: every field answers, with nothing where it has nothing."""
    plain, panoptic, lerf = KnownField(torch.zeros_like, {}), PanopticNeRF(7, 9, 5), LERF()
    assert (plain.num_classes, plain.num_slots, plain.reads_text) == (0, 0, False)
    assert (panoptic.num_classes, panoptic.num_slots, panoptic.reads_text) == (7, 9, False)
    assert (lerf.num_classes, lerf.num_slots, lerf.reads_text) == (20, 0, True)
    assert HashGridField(3, **SMALL).num_classes == 3
    assert HashGridField(0, **SMALL).num_classes == 0
    with pytest.raises(NotImplementedError, match='KnownField has no instance slots'):
        plain.instance_logits(torch.zeros(2, 5))
    with pytest.raises(NotImplementedError, match='PanopticNeRF reads no text'):
        panoptic.encode_text(['chair'])


@pytest.mark.parametrize('density', [0.1, 5.0, 30.0])
def test_a_field_begins_with_the_density_it_is_given(density) -> None:
    for field in (HashGridField(3, **SMALL), SemanticNeRF(hidden_dim=16)):
        field.init_density(density)
        found = field.density(torch.zeros(4, 3))[0]
        torch.testing.assert_close(found, torch.full((4,), density), atol=0.5, rtol=0.01)
