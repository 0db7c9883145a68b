"""The page as a file: what it holds, how large it is, and that nothing in it reaches out."""

import base64
import html.parser
import json
import re
import zlib
from pathlib import Path

import numpy as np
import pytest

from oneformer3d.viewer import page as page_module
from oneformer3d.viewer.page import page_of, write_page
from oneformer3d.viewer.scene import ViewedScene, view_scene
from tests.viewer.scenes import HARMFUL, small_asked, small_segmentation


class Elements(html.parser.HTMLParser):
    """Start tags with attributes, and what stands within each script."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict]] = []
        self.scripts: list[str] = []
        self.title = ''
        self._within = ''
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self._within = tag
        if tag == 'script':
            self.scripts.append('')

    def handle_endtag(self, tag):
        self._within = ''

    def handle_data(self, data):
        if self._within == 'script':
            self.scripts[-1] += data
        if self._within == 'title':
            self.title += data


@pytest.fixture(scope='module')
def scene() -> ViewedScene:
    result = small_segmentation()
    return view_scene(HARMFUL, result.upright, result.rgb, result, small_asked())


@pytest.fixture(scope='module')
def page(scene) -> str:
    return page_of(scene)


def data_of(page: str) -> dict:
    return json.loads(Elements(page).scripts[-1])


def unpack(packed: dict) -> np.ndarray:
    raw = zlib.decompress(base64.b64decode(packed['data']))
    return np.frombuffer(raw, {8: '<u1', 16: '<u2'}[packed['bits']])


def test_the_payload_is_the_scene(scene, page):
    data = data_of(page)
    steps = unpack(data['xyz']).reshape(-1, 3)
    back = data['low'] + steps / 65535 * np.array(data['extent'])
    # half a step of 4 m in 65,536, and the rounding of low and extent
    np.testing.assert_allclose(back, scene.xyz, atol=4 / 65535 / 2 + 2e-5)
    np.testing.assert_array_equal(unpack(data['rgb']).reshape(-1, 3), scene.rgb)
    for name in ('semantic', 'instance', 'panoptic', 'mask'):
        labels = unpack(data[name]).astype(int)
        np.testing.assert_array_equal(np.where(labels == 255, -1, labels), getattr(scene, name))

    assert [one['count'] for one in data['classes']] == [2000, 600, 400]
    assert [one['name'] for one in data['objects']] == ['chair', 'lamp']
    np.testing.assert_allclose(data['objects'][0]['box'], scene.objects[0].box, atol=1e-5)
    np.testing.assert_allclose(
        unpack(data['answers'][0]['scores']) / 255, scene.answers[0].scores, atol=0.5 / 255 + 1e-6
    )
    assert data['answers'][0]['ranked'][0]['views'][0] == {'frame': 'first', 'uv': [7.0, 7.0]}


def test_the_camera_looks_at_the_room_and_not_at_stray_points():
    rng = np.random.default_rng(0)
    room = rng.uniform((0, 0, 0), (4, 3, 2), (5000, 3))
    stray = rng.uniform(20, 60, (40, 3))
    cloud = np.concatenate([room, stray]).astype(np.float32)
    data = data_of(page_of(view_scene('room', cloud, np.zeros((5040, 3), np.uint8))))
    np.testing.assert_allclose(data['focus'], [2, 1.5, 1, 4, 3, 2], atol=0.25)


def test_many_instances_take_two_bytes(scene):
    instance = np.arange(len(scene.xyz)) % 700
    data = data_of(page_of(ViewedScene(**{**vars(scene), 'instance': instance})))
    assert data['instance']['bits'] == 16
    np.testing.assert_array_equal(unpack(data['instance']), instance)
    with pytest.raises(ValueError, match='65535'):
        page_of(ViewedScene(**{**vars(scene), 'instance': instance + 65535}))


def test_texts_and_names_are_data(page):
    elements = Elements(page)
    assert elements.title == HARMFUL
    assert data_of(page)['answers'][1]['text'] == HARMFUL
    assert [tag for tag, _ in elements.tags].count('script') == 2
    assert 'img' not in [tag for tag, _ in elements.tags]


def test_nothing_reaches_out(page):
    assert not re.search(r'https?:|[\'"(=]//|@import|url\(|fetch\(|XMLHttpRequest|WebSocket', page)
    elements = Elements(page)
    reached = {'src', 'href', 'srcset', 'action', 'data', 'poster'}
    assert not [tag for tag, attributes in elements.tags if reached & set(attributes)]
    policy = next(a['content'] for tag, a in elements.tags if 'content-security' in str(a).lower())
    assert policy.startswith("default-src 'none';")


def test_ids_of_the_code_are_those_of_the_page(page):
    """Every element that the code asks for is there, once."""
    here = Path(page_module.__file__).parent
    code = ''.join(path.read_text() for path in here.glob('*.js'))
    asked = set(re.findall(r"element\('([a-z-]+)'\)", code))
    ids = [attributes['id'] for _, attributes in Elements(page).tags if 'id' in attributes]
    assert len(asked) > 15
    assert asked <= set(ids)
    assert len(ids) == len(set(ids))


def test_200_000_points_are_at_most_5_megabytes(tmp_path):
    """Even of values that nothing can compress."""
    rng = np.random.default_rng(0)
    count = 200_000
    scene = view_scene(
        'noise',
        rng.random((count, 3)).astype(np.float32),
        rng.integers(0, 256, (count, 3)).astype(np.uint8),
    )
    labels = {name: rng.integers(0, 200, count) for name in ('semantic', 'instance', 'mask')}
    write_page(tmp_path / 'scene.html', ViewedScene(**{**vars(scene), **labels}))
    assert 2e6 < (tmp_path / 'scene.html').stat().st_size <= 5e6
