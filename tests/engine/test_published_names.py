"""Classes under their published names, over a config that names them at the model."""

import pytest

from oneformer3d.engine.published_names import with_class_settings

BASE = {
    'type': 'OneFormer3D',
    'num_semantic_classes': 16,
    'stuff_classes': [0, 1, 2],
    'decoder': {'num_instance_classes': 1},
    'criterion': {'num_semantic_classes': 2},
    'test_cfg': {'topk_insts': 200},
}


@pytest.mark.parametrize('name', ['stuff_classes', 'stuff_cls'])
def test_published_names_win(name):
    given = {**BASE, 'num_classes': 1, 'test_cfg': {'topk_insts': 200, name: []}}
    settled = with_class_settings(given)
    assert settled['num_semantic_classes'] == 2
    assert settled['stuff_classes'] == []
    assert settled['test_cfg'] == {'topk_insts': 200}
    assert 'num_classes' not in settled
    assert given['num_classes'] == 1, 'the argument stays as it is'


def test_without_them_nothing_changes():
    assert with_class_settings(BASE) == BASE
    other = {'type': 'MVPNet', 'num_classes': 20}
    assert with_class_settings(other) == other


def test_contradictions_are_named():
    with pytest.raises(ValueError, match=r'num_classes = 3, .*num_instance_classes = 1'):
        with_class_settings({**BASE, 'num_classes': 3})
