"""A live scene on this machine's own address, and how far it is until it is there.

Enters: a ``LiveScene``, perhaps minutes after the address is told. Leaves: HTTP. Only pages that
this server sent are answered: a request that names another host (DNS rebinding) or comes from
another origin gets 403, a text comes as JSON of bounded length, and nothing of a request ever
names a file.
"""

import json
import re
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from .errors import BadQuestionError

if TYPE_CHECKING:  # nothing slow is loaded before the address can be told
    from .live import LiveScene

LOOPBACK = ('127.0.0.1', 'localhost', '::1')
MAX_BODY = 4096  # bytes of a request
_TIMEOUT = 30.0  # seconds that a connection may say nothing
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src 'self'; connect-src 'self'; frame-ancestors 'none'"
)
_WAITING = Path(__file__).parent / 'waiting.html'
_NUMBER = re.compile(r'[0-9]{1,9}')
_FLOATS = re.compile(r'-?[0-9]{1,6}(\.[0-9]{1,6})?(,-?[0-9]{1,6}(\.[0-9]{1,6})?){0,31}')
_OBJECTS = re.compile(r'objects=[0-9]{1,5}(,[0-9]{1,5}){0,4095}')


class SceneServer(ThreadingHTTPServer):
    """Serves one scene, and until it is there a page that says how far it is; threaded.

    Args:
        live: the scene; None where ``show`` brings it later.
        host: address to listen at. Another than a loopback address lets everybody in who reaches
            it, and then requests must name it or a loopback name.
        port: 0 takes a free one, which ``url`` tells.

    Raises:
        OSError: the port is taken.
    """

    daemon_threads = True
    request_queue_size = 128  # with the usual 5, twenty clients at once lose connections

    def __init__(
        self, live: 'LiveScene | None' = None, host: str = '127.0.0.1', port: int = 7007
    ) -> None:
        self.live = live
        self.hosts = {*LOOPBACK, host}
        self._step = ('begins', 0, 1)
        self._start = time.monotonic()
        super().__init__((host, port), _Handler)

    def report(self, step: str, done: int, total: int) -> None:
        """What is being done, how much of it is done, and of how much."""
        self._step = (step, done, total)

    def show(self, live: 'LiveScene') -> None:
        """From now on serve a scene."""
        self.live = live

    @property
    def progress(self) -> dict[str, bool | str | int | float]:
        """How far the scene is."""
        step, done, total = self._step
        seconds = round(time.monotonic() - self._start, 1)
        ready = self.live is not None
        return {'ready': ready, 'step': step, 'done': done, 'total': total, 'seconds': seconds}

    @property
    def url(self) -> str:
        """Where a browser finds it."""
        return f'http://{self.server_address[0]}:{self.server_address[1]}/'


def is_own_request(host: str | None, origin: str | None, hosts: set[str]) -> bool:
    """Whether a request was meant for this server, and comes from its own page or from no page.

    Args:
        host: header ``Host``; behind a tunnel the port is another, so only the name counts.
        origin: header ``Origin``, which browsers send with what a page asks.
        hosts: names of this server.

    Example:
        >>> is_own_request('localhost:7007', 'http://localhost:7007', {'localhost'})
        True
        >>> is_own_request('localhost:7007', 'http://evil.example', {'localhost'})
        False
        >>> is_own_request('evil.example:7007', None, {'localhost'})
        False
    """
    if host is None:
        return False
    try:
        name = urlsplit(f'//{host}').hostname
    except ValueError:
        return False
    return name in hosts and origin in (None, f'http://{host}')


class _Handler(BaseHTTPRequestHandler):
    server: SceneServer
    protocol_version = 'HTTP/1.1'
    timeout = _TIMEOUT

    def do_GET(self) -> None:
        """The page, an image, the images of a point, or a file."""
        self._answer(self._get)

    def do_POST(self) -> None:
        """A text, or a correction of labels."""
        self._answer(self._post)

    def _answer(self, respond) -> None:
        headers = self.headers
        if not is_own_request(headers['Host'], headers['Origin'], self.server.hosts):
            self._refuse(HTTPStatus.FORBIDDEN, 'this scene is shown to its own page only')
            return
        try:
            respond()
        except BadQuestionError as error:
            self._refuse(HTTPStatus.BAD_REQUEST, str(error))
        except ConnectionError:
            self.close_connection = True  # the browser left

    def _get(self) -> None:
        path, _, query = self.path.partition('?')
        kind, _, what = path.removeprefix('/').partition('/')

        # what there is before the scene is
        if path == '/progress':
            self._send_json(self.server.progress)
        elif path == '/favicon.ico':
            self._send('image/x-icon', b'', status=HTTPStatus.NO_CONTENT)
        elif path == '/' and self.server.live is None:
            self._send('text/html; charset=utf-8', _WAITING.read_bytes())
        elif (live := self._live()) is None:
            return

        # the scene, and what is asked of it
        elif path == '/':
            self._send('text/html; charset=utf-8', live.page)
        elif kind == 'image':
            self._send('image/jpeg', live.image(_number(what)))
        elif kind == 'views':
            self._send_json(live.views(_number(what)))
        elif kind == 'render':
            self._send('image/jpeg', live.render(what, _numbers(query)))
        elif kind == 'export':
            name, content = live.export(what, _rows(query))
            self._send('application/octet-stream', content, name)
        else:
            self._refuse(HTTPStatus.NOT_FOUND, 'there is nothing here')

    def _post(self) -> None:
        # other types a page of another origin may send without being asked whether it may
        if (live := self._live()) is None:
            return
        answers: dict[str, Callable[[object], object]] = {
            '/ask': lambda told: live.ask(*_question(told)),
            '/correct': live.correct,
            '/save': lambda _: live.save(),
        }
        answer = answers.get(self.path)
        if answer is None or self.headers.get_content_type() != 'application/json':
            raise BadQuestionError(f'expected JSON at {", ".join(answers)}')
        length = _number(self.headers.get('Content-Length', ''))
        if length is None or length > MAX_BODY:
            raise BadQuestionError(f'expected at most {MAX_BODY} bytes')
        try:
            told = json.loads(self.rfile.read(length))
        except (ValueError, RecursionError) as error:
            raise BadQuestionError('expected JSON') from error
        self._send_json(answer(told))

    def _live(self) -> 'LiveScene | None':
        """The scene; where there is none yet that is said."""
        live = self.server.live
        if live is None:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, 'the scene is still being made')
        return live

    def _send_json(self, content: object) -> None:
        self._send('application/json', json.dumps(content, allow_nan=False).encode())

    def _send(
        self, kind: str, content: bytes, name: str = '', status: HTTPStatus = HTTPStatus.OK
    ) -> None:
        self.send_response(status)
        self.send_header('Content-Type', kind)
        self.send_header('Content-Length', str(len(content)))
        self.send_header('Content-Security-Policy', _POLICY)
        self.send_header('Cross-Origin-Resource-Policy', 'same-origin')
        self.send_header('X-Content-Type-Options', 'nosniff')
        self.send_header('Cache-Control', 'no-store')
        if name:
            self.send_header('Content-Disposition', f'attachment; filename="{name}"')
        self.end_headers()
        self.wfile.write(content)

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        # what the request still had to say is not read
        self.close_connection = True
        self._send('application/json', json.dumps({'error': why}).encode(), status=status)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: texts are nobody else's business."""


def _rows(query: str) -> list[int] | None:
    """Numbers of ``objects=0,3``, None without a query."""
    if not query:
        return None
    if not _OBJECTS.fullmatch(query):
        raise BadQuestionError('expected objects=NUMBER,NUMBER,...')
    return [int(word) for word in query.removeprefix('objects=').split(',')]


def _question(told: object) -> tuple[object, object]:
    """Text and negatives of what a page told."""
    return (told.get('text'), told.get('negatives')) if isinstance(told, dict) else (None, None)


def _numbers(query: str) -> list[float]:
    """Numbers between commas."""
    if not _FLOATS.fullmatch(query):
        raise BadQuestionError('expected numbers')
    return [float(word) for word in query.split(',')]


def _number(text: str) -> int | None:
    return int(text) if _NUMBER.fullmatch(text) else None
