"""The server over real sockets: its own page is answered, all others are turned away."""

import http.client
import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from oneformer3d.viewer.server import MAX_BODY, SceneServer
from tests.viewer.test_live import editable, live  # noqa: F401  (a fixture)

JSON = {'Content-Type': 'application/json'}


@contextmanager
def serving(live):  # noqa: F811
    with SceneServer(live, port=0) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture(scope='module')
def server(live):  # noqa: F811
    with serving(live) as running:
        yield running


def request(server, method='GET', path='/', body=None, headers=None):
    """Status, headers and content."""
    host, port = server.server_address[:2]
    connection = http.client.HTTPConnection(host, port, timeout=30)
    connection.request(method, path, body, headers or {})
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response.status, response.headers, content


def ask(server, text, **headers):
    body = json.dumps({'text': text})
    return request(server, 'POST', '/ask', body, {**JSON, **headers})


def test_the_page_and_its_parts(server):
    status, headers, content = request(server)
    assert status == 200
    assert content == server.live.page
    assert "default-src 'none'" in headers['Content-Security-Policy']
    status, headers, content = request(server, path='/image/0')
    assert (status, headers['Content-Type']) == (200, 'image/jpeg')
    assert content == server.live.image(0)
    assert isinstance(json.loads(request(server, path='/views/5')[2]), list)
    status, headers, _ = request(server, path='/export/glb')
    assert headers['Content-Disposition'] == 'attachment; filename="scene.glb"'
    whole, lamp = (request(server, path=f'/export/json{query}')[2] for query in ('', '?objects=1'))
    assert [len(json.loads(content)['annotations']) for content in (whole, lamp)] == [2, 1]


def test_texts_are_answered_as_data(server):
    status, headers, content = ask(server, '<img src=x onerror=alert(1)>')
    assert (status, headers['Content-Type']) == (200, 'application/json')
    assert json.loads(content)['text'] == '<img src=x onerror=alert(1)>'
    assert headers['X-Content-Type-Options'] == 'nosniff'


@pytest.mark.parametrize('path', ['/', '/views/0', '/image/0', '/export/ply'])
@pytest.mark.parametrize(
    'headers',
    [
        {'Origin': 'http://evil.example'},
        {'Origin': 'null'},
        {'Origin': 'http://localhost:1'},  # another program of this machine
        {'Host': 'evil.example'},
        {'Host': 'evil.example:7007', 'Origin': 'http://evil.example:7007'},
        {'Host': '127.0.0.1.evil.example'},
        {'Host': '[::1'},
        {'Host': ''},
    ],
)
def test_others_are_turned_away(server, path, headers):
    assert request(server, path=path, headers=headers)[0] == 403


def test_texts_of_others_are_turned_away(server):
    assert ask(server, 'chair', Origin='http://evil.example')[0] == 403
    # what a form of a foreign page may send without being asked has another type
    body = json.dumps({'text': 'chair'})
    for kind in ('text/plain', 'application/x-www-form-urlencoded'):
        assert request(server, 'POST', '/ask', body, {'Content-Type': kind})[0] == 400


def test_corrections_of_others_are_turned_away():
    saved = []
    with serving(editable(saved)) as running:
        wish = json.dumps({'kind': 'delete', 'objects': [0]})
        for path in ('/correct', '/save'):
            evil = {**JSON, 'Origin': 'http://evil.example'}
            assert request(running, 'POST', path, wish, evil)[0] == 403
            assert request(running, 'POST', path, wish, {'Content-Type': 'text/plain'})[0] == 400
        assert request(running, 'GET', '/save')[0] == 404
        assert running.live.editor.num_steps == 0
        assert not saved

        assert request(running, 'POST', '/correct', wish, JSON)[0] == 200
        status, _, content = request(running, 'POST', '/save', '{}', JSON)
        assert (status, json.loads(content)) == (200, {'saved': 'saved, originals kept'})
        assert len(saved[0].instances) == 1


def test_until_the_scene_is_there_the_page_says_how_far_it_is(live):  # noqa: F811
    with serving(None) as running:
        assert b'progress' in request(running)[2]
        running.report('images', 3, 8)
        told = json.loads(request(running, path='/progress')[2])
        assert (told['ready'], told['step'], told['done'], told['total']) == (False, 'images', 3, 8)
        assert (
            request(running, path='/progress', headers={'Origin': 'http://evil.example'})[0] == 403
        )
        assert request(running, path='/views/0')[0] == 503
        assert ask(running, 'chair')[0] == 503

        running.show(live)
        assert json.loads(request(running, path='/progress')[2])['ready']
        assert request(running)[2] == live.page
        assert ask(running, 'chair')[0] == 200


def test_the_address_is_told_before_anything_slow_is_loaded():
    code = 'import sys, oneformer3d.viewer.server; print(*sys.modules)'
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert not {'torch', 'numpy', 'scipy'} & set(run.stdout.split())


def test_the_own_page_is_known_behind_a_tunnel(server):
    for host in ('localhost:9000', '127.0.0.1:80', '[::1]:7007'):
        assert ask(server, 'chair', Host=host, Origin=f'http://{host}')[0] == 200


def test_what_cannot_be_is_refused(server):
    cases = [
        ('POST', '/ask', b'{', JSON),
        ('POST', '/ask', b'[1]', JSON),
        ('POST', '/ask', b'{"text": 3}', JSON),
        ('POST', '/ask', json.dumps({'text': 'x' * 300}).encode(), JSON),
        ('POST', '/ask', b' ' * (MAX_BODY + 1), JSON),
        ('POST', '/ask', b'', {**JSON, 'Content-Length': '-1'}),
        ('POST', '/other', b'{}', JSON),
        ('POST', '/correct', b'{"kind": "undo"}', JSON),
        ('POST', '/save', b'{}', JSON),
        ('GET', '/image/9', None, {}),
        ('GET', '/image/../../../etc/passwd', None, {}),
        ('GET', '/image/1e3', None, {}),
        ('GET', '/views/' + '9' * 50, None, {}),
        ('GET', '/export/%2e%2e', None, {}),
        ('GET', '/render/rgb?1,2,3', None, {}),
        ('GET', '/render/rgb?1,nan', None, {}),
        ('POST', '/ask', b'{"text": "a", "negatives": "b"}', JSON),
        ('POST', '/ask', b'{"text": "a", "negatives": [1]}', JSON),
        ('POST', '/ask', json.dumps({'text': 'a', 'negatives': ['b'] * 21}).encode(), JSON),
        ('GET', '/export/ply?objects=2', None, {}),
        ('GET', '/export/ply?objects=', None, {}),
        ('GET', '/export/ply?objects=0,-1', None, {}),
        ('GET', '/export/ply?objects=' + '0,' * 5000 + '0', None, {}),
    ]
    for method, path, body, headers in cases:
        status, _, content = request(server, method, path, body, headers)
        assert status == 400, (method, path)
        assert json.loads(content)['error']
    assert request(server, path='/etc/passwd')[0] == 404
    assert request(server, 'DELETE')[0] == 501


def test_20_clients_lose_nothing(server):
    """500 texts, each answered as if it were alone."""
    expected = {text: server.live.ask(text) for text in ('chair', 'lamp', 'elephant')}

    def client(number: int) -> int:
        right = 0
        for turn in range(25):
            text = list(expected)[(number + turn) % 3]
            status, _, content = ask(server, text)
            right += status == 200 and json.loads(content) == expected[text]
        return right

    with ThreadPoolExecutor(20) as clients:
        assert sum(clients.map(client, range(20))) == 500
