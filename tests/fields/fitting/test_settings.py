"""Files of settings: what a leaf inherits, and that the shipped ones for GPUs build and learn."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from oneformer3d.fields.fitting.loop import fit_field
from oneformer3d.fields.fitting.settings import make_fit_settings
from tests.fields.fitting.test_fit import with_made_up_language
from tests.helpers.small_scenes import box_scene

CONFIGS = Path(__file__).resolve().parents[3] / 'configs' / 'fields'
ON_GPU = sorted(path.stem for path in CONFIGS.glob('*_gpu.yaml'))


def test_a_leaf_goes_on_from_its_base(tmp_path):
    (tmp_path / 'base.yaml').write_text(
        'steps: 7\nseed: 1\nfield_options: {hidden_dim: 8, features: {max_res: 64}}\n'
    )
    leaf = tmp_path / 'leaf.yaml'
    leaf.write_text('_base_: base.yaml\nsteps: 9\nfield_options: {features: {num_levels: 2}}\n')
    settings = make_fit_settings(leaf, {'field_options': {'geo_dim': 4}})
    assert (settings.steps, settings.seed) == (9, 1)
    assert settings.field_options == {
        'hidden_dim': 8, 'geo_dim': 4, 'features': {'max_res': 64, 'num_levels': 2},
    }  # fmt: skip

    for text, message in (
        ('_base_: absent.yaml', 'absent.yaml: no such config'),
        ('_base_: [1]', 'should be the name of a file'),
        ('_base_: leaf.yaml', 'has a _base_ itself'),
    ):
        (tmp_path / 'other.yaml').write_text(text)
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            make_fit_settings(tmp_path / 'other.yaml')


@pytest.mark.parametrize('name', ON_GPU)
def test_the_sizes_of_the_papers_build_and_take_a_step(name):
    settings = make_fit_settings(CONFIGS / f'{name}.yaml')
    few = dict(batch_rays=8, surface_pixels=8, coarse_samples=4, fine_samples=4, amp=False)
    scene = box_scene(3)
    if settings.method == 'lerf':
        scene = with_made_up_language(scene)
    losses = []
    fitted = fit_field(
        scene,
        replace(settings, steps=1, holdout_every=0, **few),
        on_step=lambda step, values: losses.append(values['loss']),
    )
    (loss,) = losses
    assert math.isfinite(loss)

    # 16 × 2 to 2048 cells
    grid = fitted.field.grid
    sides = [level.num_nodes for level in grid.levels]
    assert (len(sides), grid.output_dim, sides[0], sides[-1]) == (16, 32, 16, 2048)
    if settings.method == 'feature_field':
        head = fitted.field.head_nets['features']
        assert (head.encoding_dim, len(head.grid.levels)) == (96 + 36, 12)
        assert [layer.out_features for layer in head.net if hasattr(layer, 'out_features')] == [
            64, 64, 4,
        ]  # fmt: skip
        assert settings.weights['features'] == 1e-3
