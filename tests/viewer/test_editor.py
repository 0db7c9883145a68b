"""What a page may correct: checked wishes, one step back, and one save at a time."""

import numpy as np
import pytest

from oneformer3d.viewer.editor import MAX_STEPS, SceneEditor
from oneformer3d.viewer.errors import BadQuestionError
from tests.viewer.scenes import small_segmentation


def make_editor(saved=None) -> SceneEditor:
    saved = [] if saved is None else saved

    def save(result) -> str:
        saved.append(result)
        return 'saved'

    return SceneEditor(small_segmentation(), ('chair', 'lamp'), save)


def test_wishes_are_done_and_taken_back():
    saved = []
    editor = make_editor(saved)
    renamed = editor.correct({'kind': 'rename', 'objects': [0], 'name': 'lamp'})
    assert [one.name for one in renamed.instances] == ['lamp', 'lamp']
    assert len(editor.correct({'kind': 'merge', 'objects': [0, 1]}).instances) == 1
    assert editor.correct({'kind': 'delete', 'objects': [0]}).instances == ()
    assert editor.correct({'kind': 'undo'}).instances[0].num_points == 1000
    assert editor.save() == 'saved'
    assert saved[0] is editor.segmentation
    for _ in range(2):
        editor.correct({'kind': 'undo'})
    np.testing.assert_array_equal(editor.segmentation.semantic, small_segmentation().semantic)
    with pytest.raises(BadQuestionError, match='nothing to take back'):
        editor.correct({'kind': 'undo'})


def test_steps_are_bounded():
    editor = make_editor()
    for turn in range(MAX_STEPS + 5):
        name = ('lamp', 'chair')[turn % 2]
        editor.correct({'kind': 'rename', 'objects': [0], 'name': name})
    assert editor.num_steps == MAX_STEPS


@pytest.mark.parametrize(
    'wish',
    [
        None,
        [],
        {},
        {'kind': 'explode'},
        {'kind': ['rename']},
        {'kind': 'delete'},
        {'kind': 'delete', 'objects': []},
        {'kind': 'delete', 'objects': [2]},
        {'kind': 'delete', 'objects': [-1]},
        {'kind': 'delete', 'objects': [True]},
        {'kind': 'delete', 'objects': ['0']},
        {'kind': 'delete', 'objects': [0, 1]},
        {'kind': 'merge', 'objects': [0]},
        {'kind': 'merge', 'objects': [0, 0]},
        {'kind': 'merge', 'objects': [0] * 1000},
        {'kind': 'rename', 'objects': [0]},
        {'kind': 'rename', 'objects': [0], 'name': 'floor'},  # has no objects
        {'kind': 'rename', 'objects': [0], 'name': '../../etc/passwd'},
        {'kind': 'rename', 'objects': [0], 'name': ['chair']},
    ],
)
def test_other_wishes_are_refused(wish):
    editor = make_editor()
    with pytest.raises(BadQuestionError):
        editor.correct(wish)
    assert editor.num_steps == 0
