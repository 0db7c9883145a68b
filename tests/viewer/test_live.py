"""What a live scene answers, and what it refuses."""

import json

import numpy as np
import pytest
import torch

from oneformer3d.files.ply import read_ply
from oneformer3d.lifting.camera import Camera
from oneformer3d.viewer.editor import SceneEditor
from oneformer3d.viewer.errors import BadQuestionError
from oneformer3d.viewer.images import make_images
from oneformer3d.viewer.live import MAX_TEXT, LiveScene, TextAsker
from oneformer3d.viewer.scene import view_scene
from tests.viewer.scenes import small_asked, small_segmentation

SIZE = (48, 64)  # H, W
K = torch.tensor([[50.0, 0, 31.5], [0, 50.0, 23.5], [0, 0, 1]])


def encode(texts) -> np.ndarray:
    """A text of 'chair' is the first axis, of 'lamp' the second, any other the negative."""
    rows = {'chair': [1, 0, 0], 'lamp': [0, 1, 0]}
    return np.array([rows.get(text, [0.6, 0, 0.8]) for text in texts], np.float32)


def two_images():
    """Two cameras above the room that look down; nothing but the floor stands in their way."""
    poses = torch.eye(4).repeat(2, 1, 1)
    poses[:, :3, :3] = torch.tensor([[1.0, 0, 0], [0, -1, 0], [0, 0, -1]])  # z forward is down
    poses[0, :3, 3] = torch.tensor([1.0, 1.0, 3.0])
    poses[1, :3, 3] = torch.tensor([3.0, 2.0, 4.0])
    camera = Camera(K, poses, SIZE)
    depth = torch.stack([torch.full(SIZE, 3.0), torch.full(SIZE, 4.0)])
    colors = np.stack([np.full((*SIZE, 3), value, np.uint8) for value in (60, 180)])
    return make_images(('first', 'second'), colors, camera, depth, camera)


@pytest.fixture(scope='module')
def live() -> LiveScene:
    result, asked = small_segmentation(), small_asked()
    mask = asked.index.mask_of_point
    scene = view_scene('room', result.upright, result.rgb, result, mask_of_point=mask)
    asker = TextAsker(asked.index, encode, encode(['']))
    world = result.points[:, :3].astype(np.float64)
    turn = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    return LiveScene(scene, world, (turn, np.array([10.0, 0, 0])), asker, two_images(), result)


def editable(saved: list) -> LiveScene:
    """The room with an editor that keeps what it is told to save in a list."""
    result, asked = small_segmentation(), small_asked()

    def view(segmentation):
        mask = asked.index.mask_of_point
        return view_scene('room', result.upright, result.rgb, segmentation, mask_of_point=mask)

    def save(segmentation) -> str:
        saved.append(segmentation)
        return 'saved, originals kept'

    editor = SceneEditor(result, ('chair', 'lamp'), save)
    world = result.points[:, :3].astype(np.float64)
    still = (np.eye(3), np.zeros(3))
    return LiveScene(view(result), world, still, None, None, result, editor, view)


def test_texts_are_answered(live):
    answer = live.ask('chair')
    assert answer['found']
    assert answer['ranked'][0]['name'] == 'chair'
    assert live.ask(' chair\n')['text'] == 'chair'
    nothing = live.ask('an elephant')
    assert not nothing['found']
    assert nothing['ranked'] == []


def test_negatives_of_the_page_count(live):
    """What is like the chair is no chair where a chair is what it is not."""
    assert live.ask('chair', ['lamp'])['text'] == 'chair (not lamp)'
    assert live.ask('chair', [])['text'] == 'chair'
    assert not live.ask('chair', ['chair'])['found']


@pytest.mark.parametrize('text', ['', '  ', None, 7, ['chair'], 'x' * (MAX_TEXT + 1)])
def test_what_is_no_text_is_refused(live, text):
    with pytest.raises(BadQuestionError):
        live.ask(text)


def test_images_that_saw_a_point(live):
    """Pinhole by hand: u = f x / z + c, and a share of the width counts from the outer edge."""
    floor = int(np.argmin(np.linalg.norm(live.world - [1.5, 1.2, 0.01], axis=1)))
    x, y, z = live.world[floor]
    seen = {one['frame']: one for one in live.views(floor)}
    assert list(seen) == ['first', 'second'] or set(seen) == {'first'}
    depth = 3.0 - z
    u, v = 50 * (x - 1) / depth + 31.5, 50 * (1 - y) / depth + 23.5
    np.testing.assert_allclose(seen['first']['place'], [(u + 0.5) / 64, (v + 0.5) / 48], atol=2e-4)
    # the top of the lamp is 1.5 m above the floor that the depth shows
    assert live.views(int(np.argmax(live.world[:, 2]))) == []


def test_images_are_jpegs(live):
    assert live.image(1).startswith(b'\xff\xd8')
    for view in (-1, 2, None, '0', True):
        if view is True:
            continue
        with pytest.raises(BadQuestionError):
            live.image(view)
    for point in (-1, 3000, None, 'x'):
        with pytest.raises(BadQuestionError):
            live.views(point)


def test_cameras_are_drawn_where_they_stand(live):
    text = live.page.decode()
    data = json.loads(text[text.rindex('application/json">') + 18 : text.rindex('</script>')])
    first = data['live']['cameras'][0]
    # turned by 90 degrees about z, then moved by 10 m: (1, 1, 3) → (−1, 1, 3) → (9, 1, 3)
    np.testing.assert_allclose(first['centre'], [9, 1, 3], atol=1e-4)
    np.testing.assert_allclose(first['axes'], [[0, 1, 0], [1, 0, 0], [0, 0, -1]], atol=1e-4)
    assert first['half'] == [0.64, 0.48]
    assert data['live']['asks']
    assert data['live']['exports'] == ['ply', 'glb', 'json']


def test_exports_are_what_was_segmented(live, tmp_path):
    name, content = live.export('ply')
    (tmp_path / name).write_bytes(content)
    xyz, _, labels = read_ply(tmp_path / name)
    np.testing.assert_array_equal(xyz, live.segmentation.points[:, :3])
    np.testing.assert_array_equal(labels['semantic'], live.segmentation.semantic)
    assert live.export('glb')[1].startswith(b'glTF')
    assert len(json.loads(live.export('json')[1])['annotations']) == 2
    with pytest.raises(BadQuestionError):
        live.export('../../etc/passwd')


def test_corrections_change_labels_exports_and_the_page():
    saved = []
    scene = editable(saved)
    before = scene.page
    labels = scene.correct({'kind': 'delete', 'objects': [1]})
    assert [one['name'] for one in labels['objects']] == ['chair']
    assert [one['count'] for one in labels['classes']] == [2000, 600, 0]
    assert len(json.loads(scene.export('json')[1])['annotations']) == 1
    assert scene.page != before
    assert scene.scene.num_whole == 2  # masks that texts ask are still the first ones
    assert scene.save() == {'saved': 'saved, originals kept'}
    assert saved[0] is scene.segmentation
    scene.correct({'kind': 'undo'})
    assert scene.page == before


def test_a_disk_that_is_full_is_said():
    scene = editable([])

    def full(_):
        raise OSError(28, 'No space left on device')

    scene.editor._save = full
    with pytest.raises(BadQuestionError, match='No space left'):
        scene.save()


def test_a_cloud_alone_refuses_what_it_does_not_know():
    result = small_segmentation()
    scene = view_scene('room', result.upright, result.rgb)
    alone = LiveScene(scene, result.points[:, :3].astype(float), (np.eye(3), np.zeros(3)))
    with pytest.raises(BadQuestionError, match='--clip-weights'):
        alone.ask('chair')
    assert alone.views(0) == []
    undo = {'kind': 'undo'}
    for ask in (
        lambda: alone.image(0),
        lambda: alone.export('ply'),
        lambda: alone.correct(undo),
        alone.save,
    ):
        with pytest.raises(BadQuestionError):
            ask()
