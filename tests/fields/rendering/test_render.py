"""Rendering against closed forms, published golden rays, and itself in chunks."""

from dataclasses import FrozenInstanceError

import pytest
import torch

from oneformer3d.fields import (
    FeatureRenderer,
    HashGridField,
    HierarchicalSampler,
    OccupancyGrid,
    SceneBox,
    SemanticNeRF,
    UniformSampler,
    composite,
    render_image,
    render_rays,
    render_semantic_rays,
    weights_from_density,
)
from oneformer3d.fields.rendering.rays import image_rays
from tests.helpers.analytic_fields import (
    WALL_COLOURS,
    KnownField,
    look_around,
    random_rays,
    room_distance,
    room_field,
    wall,
)

BOX = SceneBox(torch.diag(torch.tensor([1 / 3, 1 / 3, 1 / 3, 1])), torch.ones(3))


def small_field(**options) -> HashGridField:
    field = HashGridField(
        5, num_levels=4, log2_hashmap_size=10, base_resolution=4, max_resolution=32,
        hidden_dim=16, scene_box=BOX, **options,
    )  # fmt: skip
    for name, parameter in field.named_parameters():
        if name.endswith('table'):
            parameter.data.normal_(0, 0.5)
    return field.eval()


def test_golden_rays_of_nerfacc() -> None:
    edges = torch.arange(5.0)
    for density, weights, slope in (
        ([0.4], [0.3297], 0.6703),
        ([0.8, 0.1, 0.8, 0.1], [0.5507, 0.0428, 0.2239, 0.0174], 0.1653),
    ):
        sigma = torch.tensor(density, requires_grad=True)
        found, left = weights_from_density(sigma, edges[: len(density) + 1])
        torch.testing.assert_close(found, torch.tensor(weights), atol=1e-4, rtol=0)
        found.sum().backward()
        torch.testing.assert_close(sigma.grad, torch.full_like(sigma, slope), atol=1e-4, rtol=0)
        torch.testing.assert_close(left + found.sum(), torch.tensor(1.0))


def test_light_is_conserved_for_any_density() -> None:
    density = torch.exp(torch.randn(200, 64) * 4)
    edges = torch.rand(200, 65).cumsum(-1)
    weights, left = weights_from_density(density, edges)
    torch.testing.assert_close(weights.sum(-1) + left, torch.ones(200), atol=2e-6, rtol=0)
    half, left_half = weights_from_density(density.half().clamp(max=1e4), edges.half())
    assert half.dtype == left_half.dtype == torch.float32
    empty, all_left = weights_from_density(torch.zeros(1, 4), torch.arange(5.0)[None])
    assert empty.abs().max() == 0
    assert all_left == 1
    with pytest.raises(ValueError, match='edges: expected'):
        weights_from_density(density, edges[:, 1:])


def test_weights_gradcheck() -> None:
    density = torch.rand(3, 5, dtype=torch.float64, requires_grad=True)
    edges = torch.rand(3, 6, dtype=torch.float64).cumsum(-1).requires_grad_()
    values = torch.rand(3, 5, 2, dtype=torch.float64, requires_grad=True)

    def rendered(d, e, v):
        weights, left = weights_from_density(d, e)
        return composite(weights, v), left

    assert torch.autograd.gradcheck(rendered, (density, edges, values))


@pytest.mark.parametrize('scene_box', [None, BOX])
def test_homogeneous_slab_in_closed_form(scene_box) -> None:
    sigma, begin, end = 0.7, 2.0, 3.5
    colour = torch.tensor([0.2, 0.5, 0.9])
    field = KnownField(
        lambda x: ((x[..., 0] > begin) & (x[..., 0] < end)) * sigma,
        {'rgb': lambda x: colour.expand(*x.shape[:-1], 3)},
        scene_box,
    )
    rays = random_rays(1)
    rays = type(rays)(
        torch.zeros(1, 3),
        torch.tensor([[1.0, 0, 0]]),
        rays.near * 0,
        rays.far * 0 + 6,
        rays.z_scale,
    )
    outputs = render_rays(field, rays, UniformSampler(600), perturb=False, background=1.0)
    length = torch.tensor(end - begin)
    opacity = 1 - torch.exp(-sigma * length)
    torch.testing.assert_close(outputs.accumulation[0], opacity, atol=1e-5, rtol=0)
    torch.testing.assert_close(
        outputs.heads['rgb'][0], opacity * colour + (1 - opacity), atol=1e-5, rtol=0
    )
    # mean of the exponential distribution cut off at the slab's end
    mean = begin + 1 / sigma - length * (1 - opacity) / opacity
    torch.testing.assert_close(outputs.distance[0], mean, atol=1e-3, rtol=0)


def test_room_has_exact_depth_and_walls() -> None:
    camera = look_around(3)
    field = room_field(BOX).eval()
    for view in range(3):
        rays = image_rays(camera[view], 0.05, 6.0)
        outputs = render_image(field, camera[view], HierarchicalSampler(128, 128), 0.05, 6.0)
        expected = room_distance(rays).view(12, 16)
        # a wall lies within the first interval whose middle is beyond it
        torch.testing.assert_close(outputs.distance, expected, atol=0.02, rtol=0)
        assert (outputs.distance - expected).abs().mean() < 2e-3
        walls = camera[view].unproject(outputs.depth)
        hit = camera[view].unproject(expected / rays.z_scale.view(12, 16))
        torch.testing.assert_close(walls, hit, atol=0.02, rtol=0)
        clear = outputs.heads['semantics'].amax(-1) > 0.999
        assert clear.float().mean() > 0.9
        assert torch.equal(outputs.heads['semantics'].argmax(-1)[clear], wall(hit)[clear])
        torch.testing.assert_close(
            outputs.heads['rgb'][clear], WALL_COLOURS[wall(hit)][clear], atol=1e-3, rtol=0
        )


def test_semantic_rays_count_in_the_given_direction_s_length() -> None:
    camera = look_around(1)[0]
    rays = image_rays(camera)
    scaled = rays.directions * rays.z_scale[:, None]
    field = room_field().eval()
    outputs = render_semantic_rays(field, rays.origins, scaled, 0.1, 6.0, 128)
    expected = room_distance(rays) / rays.z_scale  # z-depth, as these directions have z = 1
    torch.testing.assert_close(outputs['depth'], expected, atol=0.03, rtol=0)
    assert outputs['weights'].shape == (192, 192)
    plain = render_semantic_rays(field, rays.origins, scaled, 0.1, 6.0, 128, use_hierarchical=False)
    assert plain['weights'].shape == (192, 128)
    assert set(outputs) >= {'rgb', 'semantics', 'depth', 'weights', 'accumulation'}


def test_training_jitters_and_evaluation_does_not() -> None:
    field, rays = SemanticNeRF(hidden_dim=16, num_classes=3), random_rays(6)
    torch.nn.init.normal_(field.density_head.bias, 1.0)
    first, again = (
        render_semantic_rays(field.eval(), rays.origins, rays.directions) for _ in range(2)
    )
    assert torch.equal(first['edges'], again['edges'])
    jittered = render_semantic_rays(field.train(), rays.origins, rays.directions)
    assert not torch.equal(first['edges'], jittered['edges'])
    assert first['rgb'].shape == (6, 3)
    torch.testing.assert_close(first['semantics'].sum(-1), torch.ones(6), atol=1e-4, rtol=0)


def test_empty_rays_render_nothing_with_finite_gradients() -> None:
    field = small_field(
        instance_dim=4,
        features={'CLIP': 8},
        feature_options=TINY,
        language_dim=6,
        language_grids=((4, 8),),
    )
    rays = random_rays(5)
    rays = type(rays)(rays.origins, rays.directions, rays.near, rays.near, rays.z_scale)
    outputs = render_rays(field, rays, UniformSampler(8)).as_dict()
    for name in ('rgb', 'depth', 'accumulation', 'semantics', 'instances', 'features', 'language'):
        assert outputs[name].abs().max() == 0, name
    sum(value.sum() for name, value in outputs.items() if name != 'edges').backward()
    for parameter in field.parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all()


TINY = dict(num_levels=2, features_per_level=2, log2_hashmap_size=8, start_res=4, max_res=8)


def test_image_in_chunks_equals_the_whole() -> None:
    field, camera = small_field(), look_around(1)[0]
    whole, chunked = (
        render_image(
            field, camera, HierarchicalSampler(16, 16), 0.1, 5.0, chunk_rays=chunk
        ).as_dict()
        for chunk in (10_000, 37)
    )
    assert set(whole) == {'rgb', 'semantics', 'depth', 'distance', 'accumulation'}
    for name, value in whole.items():
        torch.testing.assert_close(chunked[name], value, atol=1e-5, rtol=1e-5)
        assert value.shape[:2] == (12, 16)


def test_composited_hidden_values_equal_composited_features() -> None:
    field = small_field(features={'CLIP': 8}, feature_options=TINY)
    rays = random_rays(7)
    outputs = render_rays(field, rays, UniformSampler(16))
    middles = (outputs.edges[:, 1:] + outputs.edges[:, :-1]) / 2
    positions = BOX.to_unit(rays.positions(middles))
    features = field.head_nets['features'](positions)
    expected = FeatureRenderer()(features, outputs.weights[..., None])
    torch.testing.assert_close(outputs.heads['features'], expected, atol=1e-5, rtol=1e-5)


def test_a_rendering_is_a_record_and_a_dict_of_the_same_values() -> None:
    rendered = render_rays(small_field(), random_rays(7), UniformSampler(16))
    flat = rendered.as_dict()
    assert set(flat) == {
        'distance', 'depth', 'accumulation', 'z_scale', 'edges', 'density', 'weights',
        'rgb', 'semantics',
    }  # fmt: skip
    assert flat['weights'] is rendered.weights
    assert flat['rgb'] is rendered.heads['rgb']
    assert rendered.proposals == []
    with pytest.raises(FrozenInstanceError):
        rendered.depth = rendered.distance


def test_semantic_modes() -> None:
    rays = random_rays(7)
    for mode in ('probabilities', 'logits'):
        field = small_field(semantic_mode=mode)
        outputs = render_rays(field, rays, UniformSampler(16))
        middles = (outputs.edges[:, 1:] + outputs.edges[:, :-1]) / 2
        positions = BOX.to_unit(rays.positions(middles))
        logits = field.heads(field.density(positions)[1], positions)['semantics']
        values = logits if mode == 'logits' else logits.softmax(-1)
        expected = composite(outputs.weights, values)
        if mode == 'probabilities':
            expected = expected / outputs.accumulation.clamp(min=1e-2)[:, None]
        torch.testing.assert_close(outputs.heads['semantics'], expected, atol=1e-5, rtol=1e-5)


def test_occupancy_and_small_weights_only_save_work() -> None:
    field = small_field(features={'CLIP': 8}, feature_options=TINY)
    rays = random_rays(20)
    full = render_rays(field, rays, UniformSampler(32))
    everywhere = OccupancyGrid(torch.ones(8, 8, 8, dtype=torch.bool))
    same = render_rays(field, rays, UniformSampler(32), occupancy=everywhere)
    with torch.no_grad():
        sparse = render_rays(field, rays, UniformSampler(32), min_weight=1e-6)
    same, sparse, full = (rendered.as_dict() for rendered in (same, sparse, full))
    for name in ('rgb', 'semantics', 'depth', 'features', 'weights'):
        torch.testing.assert_close(same[name], full[name], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(sparse[name], full[name].detach(), atol=2e-4, rtol=1e-4)
    nowhere = OccupancyGrid(torch.zeros(8, 8, 8, dtype=torch.bool))
    outputs = render_rays(field, rays, UniformSampler(32), occupancy=nowhere)
    assert outputs.accumulation.max() == 0
    assert outputs.heads['rgb'].max() == 0


def test_heads_are_not_queried_where_no_light_arrives() -> None:
    """Values and gradients stay what they are, behind a wall nothing is worked out."""
    field, rays, queried = small_field().train(), random_rays(20), []
    with torch.no_grad():
        field.density_net[-1].bias[0] += 4.0
    head = field.head_nets['rgb']
    sample = head.sample
    head.sample = lambda hidden, *rest: queried.append(len(hidden)) or sample(hidden, *rest)
    gradients = []
    for min_weight in (0.0, 1e-6):
        outputs = render_rays(
            field, rays, UniformSampler(64), ('rgb',), perturb=False, min_weight=min_weight
        )
        field.zero_grad()
        outputs.heads['rgb'].pow(2).sum().backward()
        gradients.append([p.grad.clone() for p in field.parameters() if p.grad is not None])
    assert queried[1] < 0.7 * queried[0]
    for whole, short in zip(*gradients):
        torch.testing.assert_close(short, whole, atol=1e-2 * float(whole.abs().max()), rtol=0)


@pytest.mark.parametrize('reach', ['density', 'trunk', 'head'])
def test_gradients_reach_no_farther_than_set(reach) -> None:
    field = SemanticNeRF(hidden_dim=16, num_classes=3)
    field.set_gradient('semantics', reach)
    outputs = render_rays(field, random_rays(8), UniformSampler(16))
    loss = (outputs.heads['semantics'] * torch.rand(8, 3)).sum()
    loss.backward()
    zero = {name: _is_zero(parameter.grad) for name, parameter in field.named_parameters()}
    assert zero['density_head.weight'] == (reach != 'density')
    assert zero['density_head.bias'] == (reach != 'density')
    assert zero['feature_head.weight'] == (reach == 'head')
    assert zero['density_net.0.weight'] == (reach == 'head')
    assert not zero['head_nets.semantics.net.0.weight']
    with pytest.raises(ValueError, match='reach must be'):
        field.set_gradient('semantics', 'all')


def _is_zero(grad) -> bool:
    return grad is None or bool((grad == 0).all())


def test_whole_rendering_gradcheck() -> None:
    field = SemanticNeRF(2, 1, hidden_dim=6, num_classes=2).double()
    rays = random_rays(2, dtype=torch.float64)
    names = ('density_head.weight', 'feature_head.bias', 'head_nets.rgb.net.0.weight')
    parameters = dict(field.named_parameters())

    def rendered(*values):
        parts = dict(zip(names, values))
        outputs = _render_with(field, parts, rays)
        return outputs.heads['rgb'], outputs.heads['semantics'], outputs.depth

    assert torch.autograd.gradcheck(rendered, tuple(parameters[name] for name in names))


def _render_with(field, parts, rays):
    class Swapped(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.field = field

        def forward(self):
            return render_rays(self.field, rays, UniformSampler(4), perturb=False)

    names = {f'field.{name}': value for name, value in parts.items()}
    return torch.func.functional_call(Swapped(), names, ())


def test_autocast_changes_little() -> None:
    field, rays = small_field(), random_rays(10)
    plain = render_rays(field, rays, UniformSampler(16))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        cast = render_rays(field, rays, UniformSampler(16))
    assert cast.weights.dtype == cast.heads['rgb'].dtype == torch.float32
    torch.testing.assert_close(cast.heads['rgb'], plain.heads['rgb'], atol=0.05, rtol=0)


def test_unknown_heads_are_named() -> None:
    with pytest.raises(ValueError, match="no head \\['colour'\\]"):
        render_rays(small_field(), random_rays(2), UniformSampler(4), heads=('colour',))
