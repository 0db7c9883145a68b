"""Checkpoints are told by names and shapes: of the published lists, of every config, of none."""

import pytest
import torch

from oneformer3d.files.shipped import shipped_folder
from oneformer3d.inference.known_models import identify, model_configs
from tests.helpers.reference_values import published_parameters


def empty(shapes: dict[str, list[int]]) -> dict[str, torch.Tensor]:
    return {name: torch.empty(shape, device='meta') for name, shape in shapes.items()}


@pytest.mark.parametrize('layout', ['modules', 'published'])
@pytest.mark.parametrize('name', ['scannet', 'scannet200', 's3dis'])
def test_published_files_are_told_by_their_listed_parameters(name, layout):
    listed = published_parameters(name)
    shapes = dict(listed['live_shapes'])
    if layout == 'published':
        shapes |= listed['published_shapes'] or {}
    first, *_ = identify(empty(shapes))
    assert (first.config, first.class_table) == (f'configs/oneformer3d_{name}.py', name)
    expected = layout if listed['published_shapes'] else 'none'
    assert first.layout == expected
    for key, value in first.weights.items():
        assert list(value.shape) == listed['live_shapes'][key]


def test_every_config_is_looked_at_and_published_ones_first():
    paths = model_configs()
    assert {p.name for p in paths} == {p.name for p in (shipped_folder() / 'configs').glob('*.py')}
    assert [path.stem for path in paths[:2]] == ['oneformer3d_scannet', 'oneformer3d_scannet200']


def test_a_model_that_no_config_describes_is_told_with_the_nearest():
    shapes = dict(published_parameters('scannet')['live_shapes'])
    shapes['decoder.out_sem.weight'] = [31, 256]
    with pytest.raises(ValueError, match=r'nearest is configs/\w+\.py: 1 of another shape'):
        identify(empty(shapes))
    with pytest.raises(ValueError, match=r"1 tensors \('layer.weight', …\) of no model"):
        identify(empty({'layer.weight': [2, 2]}))
