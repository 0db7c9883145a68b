"""A field in the page: its surfaces, text at every point, and the page's camera in its world."""

import io

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from oneformer3d.fields.asking.query import field_at_points
from oneformer3d.fields.asking.text import TextQuery
from oneformer3d.fields.fitting.loop import fit_field
from oneformer3d.viewer.errors import BadQuestionError
from oneformer3d.viewer.field_scene import FieldAsker, FieldRenderer, field_cloud, view_field
from oneformer3d.viewer.live import LiveScene
from tests.helpers.small_scenes import box_scene, quick_settings

TURN = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])  # the page's frame is not the field's


@pytest.fixture(scope='module')
def cloud():
    torch.set_num_threads(1)
    settings = quick_settings(steps=60, method='feature_field', surface_pixels=512)
    return field_cloud(fit_field(box_scene(12), settings), TURN)


@pytest.fixture(scope='module')
def asker(cloud):
    """A text is what the first point looks like, nothing in particular what the last one does."""
    features = field_at_points(cloud.fitted.field, cloud.points, ('features',))['features']
    first, last = (F.normalize(features[row][None], dim=1) for row in (0, -1))

    def encode(phrases, negatives):
        return TextQuery(tuple(phrases), first, last)

    return FieldAsker(cloud, encode, ('nothing',))


def test_the_surfaces_are_the_cloud(cloud):
    scene = view_field('field', cloud)
    np.testing.assert_allclose(scene.xyz, cloud.points.numpy() @ TURN.T, atol=1e-5)
    np.testing.assert_array_equal(scene.mask, np.arange(len(scene.xyz)))
    assert scene.pieces.shape == (0, 3)
    assert len(np.unique(scene.rgb, axis=0)) > 20
    assert [one.name for one in scene.classes] == ['x', 'y', 'z']
    assert sum(one.num_points for one in scene.classes) > 0.9 * len(scene.xyz)


def test_every_point_answers_by_itself(cloud, asker):
    answer = asker.ask('the first')
    assert answer.scores.shape == (len(cloud.points),)
    assert answer.found
    assert answer.scores[0] > 0.5 >= answer.scores[-1]
    assert answer.ranked == ()


def test_the_page_looks_with_the_learnt_cameras_eyes(cloud):
    """The page's right, up and backward of a learnt camera lead back to its pose."""
    pose = cloud.fitted.observations.camera.world_from_cam[1].double().numpy()
    right, down, forward = pose[:3, :3].T
    axes = np.stack([right, -down, -forward]) @ TURN.T
    camera = FieldRenderer(cloud)._camera(TURN @ pose[:3, 3], axes)
    np.testing.assert_allclose(camera.world_from_cam.numpy(), pose, atol=1e-5)


def test_a_live_field_is_asked_and_rendered(cloud, asker):
    world = cloud.points.double().numpy()
    renderer = FieldRenderer(cloud)
    live = LiveScene(
        view_field('field', cloud), world, (TURN, np.zeros(3)), asker, renderer=renderer
    )
    assert live.ask('the first', ['nothing'])['text'] == 'the first (not nothing)'
    axes = np.eye(3).ravel().tolist()
    with Image.open(io.BytesIO(live.render('depth', [0, 0, 1, *axes]))) as image:
        assert image.size == (128, 96)
    for name, numbers in (
        ('x-ray', [0, 0, 1, *axes]),
        ('rgb', [0, 0, 1]),
        ('rgb', [0, 0, float('nan'), *axes]),
        ('rgb', [0, 0, 1e9, *axes]),
        ('rgb', [0, 0, 1, *([0.0] * 9)]),
    ):
        with pytest.raises(BadQuestionError):
            live.render(name, numbers)
