"""What surfaces teach: the opaque limit of rendering, of measured pixels, in their metres."""

from dataclasses import replace

import torch

from oneformer3d.fields import HashGridField, HierarchicalSampler, SceneBox, render_rays
from oneformer3d.fields.fitting.loop import fit_field
from oneformer3d.fields.fitting.loss import field_loss, surface_batch, surface_outputs
from oneformer3d.fields.scene.batches import RayPool
from tests.helpers.analytic_fields import KnownField, room_field
from tests.helpers.small_scenes import COLORS, HALF, SIZE, box_scene, quick_settings

BOX = SceneBox(torch.diag(torch.tensor([0.5, 0.5, 0.5, 1])), torch.ones(3))


def which_wall(world):
    return (world / HALF).abs().argmax(-1)


def box_room(scene_box=None):
    """The box room, opaque."""
    return KnownField(
        lambda x: 1e5 * ((x / HALF).abs() >= 1).any(-1).to(x),
        {
            'rgb': lambda x: (COLORS[which_wall(x)] + 0.1 * x.sin()).clamp(0, 1),
            'semantics': lambda x: torch.eye(3)[which_wall(x)],
            'instances': lambda x: x,
        },
        scene_box,
    )


def test_a_surface_says_what_its_pixel_shows_and_what_rendering_shows() -> None:
    batch = RayPool(box_scene(6), range(6), seed=1).batch(0, 300)
    for scene_box in (None, BOX):
        field = box_room(scene_box)
        outputs = surface_outputs(field, batch)
        assert set(outputs) == {'accumulation', 'rgb', 'semantics'}
        # a pixel on the edge of two walls may be either's
        same = outputs['semantics'].argmax(-1) == batch.targets['semantics']
        assert same.float().mean() > 0.97
        rgb = outputs['rgb'][same]
        torch.testing.assert_close(rgb, batch.targets['rgb'][same], atol=4e-3, rtol=0)
        rendered = render_rays(
            field, batch.rays, HierarchicalSampler(256, 256), ('rgb', 'semantics'), perturb=False
        )
        clear = same & (rendered.heads['semantics'].amax(-1) > 0.999)
        assert clear.float().mean() > 0.8
        for name in ('rgb', 'semantics'):
            torch.testing.assert_close(
                rendered.heads[name][clear], outputs[name][clear], atol=5e-3, rtol=0
            )


def test_positions_are_drawn_within_reach_along_the_ray() -> None:
    batch = RayPool(box_scene(4), range(4), seed=1).batch(0, 200)
    field = KnownField(lambda x: x[..., 0] * 0, {'features': lambda x: x})
    at, near = (
        surface_outputs(field, batch, reach=reach, generator=torch.Generator().manual_seed(0))
        for reach in (0.0, 0.05)
    )
    off = ((near['features'] - at['features']) * batch.rays.directions).sum(-1)
    assert off.abs().max() <= 0.05 + 1e-5
    assert off.min() < -0.03
    assert off.max() > 0.03
    walls = (at['features'] / HALF).abs().amax(-1)
    torch.testing.assert_close(walls, torch.ones(200), atol=1e-4, rtol=0)


def test_only_measured_pixels_within_range_teach() -> None:
    batch = RayPool(box_scene(4), range(4), seed=1).batch(0, 100)
    depth = batch.targets['depth'].clone()
    depth[:10], depth[10:20] = 0.0, 9.0
    batch = replace(batch, targets={**batch.targets, 'depth': depth})
    left = surface_batch(batch, 0.05, 5.0)
    assert len(left) == 80
    assert torch.equal(left.uv, batch.uv[20:])
    assert torch.equal(left.targets['rgb'], batch.targets['rgb'][20:])
    assert torch.equal(left.rays.origins, batch.rays.origins[20:])
    nothing = surface_batch(batch, 0.05, 0.06)
    assert surface_outputs(room_field(), nothing)['rgb'].shape == (0, 3)


def test_surfaces_teach_heads_and_trunk_but_not_the_density() -> None:
    field = HashGridField(3, num_levels=2, log2_hashmap_size=8, max_resolution=32, scene_box=BOX)
    batch = RayPool(box_scene(4), range(4), seed=1).batch(0, 50)
    outputs = surface_outputs(field, batch)
    (outputs['rgb'].sum() + (outputs['semantics'] ** 2).sum()).backward()
    density_row = field.density_net[-1].weight.grad[0]
    assert density_row.abs().max() == 0
    assert field.density_net[-1].weight.grad[1:].abs().max() > 0
    assert field.grid.table.grad.abs().max() > 0
    for name in ('rgb', 'semantics'):
        assert field.head_nets[name].net[0].weight.grad.abs().max() > 0


def test_surfaces_add_their_terms_to_those_of_rays() -> None:
    settings = quick_settings(steps=1, batch_rays=64, surface_pixels=192)
    fitted = fit_field(box_scene(4), settings)
    batch = RayPool(box_scene(4), range(3), seed=1).batch(0, 256)
    totals = {}
    for share in (0.0, 1.0):
        weights = {**settings.loss_weights, 'surface': share}
        changed = replace(fitted, settings=replace(settings, loss_weights=weights))
        totals[share], terms = field_loss(changed, batch, torch.Generator().manual_seed(0))
    names = ('rgb', 'semantics')
    assert {f'surface_{name}' for name in names} | {'rgb', 'semantics', 'depth'} <= set(terms)
    assert 'surface_depth' not in terms
    expected = sum(settings.weights[name] * terms[f'surface_{name}'] for name in names)
    torch.testing.assert_close(totals[1.0] - totals[0.0], expected, atol=1e-5, rtol=1e-4)


def test_without_depth_there_are_no_surfaces() -> None:
    values = {}
    fit_field(
        box_scene(4, depth=None),
        quick_settings(steps=1, surface_pixels=64, far=3.0),
        on_step=lambda step, found: values.update(found),
    )
    assert 'rgb' in values
    assert not any(name.startswith('surface') for name in values)


def test_depth_images_that_measured_nothing_are_no_error() -> None:
    """All pixels missing: colours are learnt along the rays, and no term is the mean of nothing."""
    nothing = [torch.zeros(SIZE) for _ in range(4)]
    fitted = fit_field(box_scene(4, depth=nothing), quick_settings(steps=1, holdout_every=0))
    assert fitted.step == 1
