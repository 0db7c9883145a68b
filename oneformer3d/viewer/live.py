"""A scene that answers: texts, which images saw a point, corrections, and files to take away.

Enters: what a page asks, as plain values that nobody has checked. Leaves: plain values for the
page. Knows no network; ``server.py`` brings both together.
"""

import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from oneformer3d.files.plain import Json
from oneformer3d.open_vocabulary.answers import MAX_RANKED, ranked_masks
from oneformer3d.open_vocabulary.index import SceneIndex
from oneformer3d.structures import Segmentation
from oneformer3d.structures.selection import select_instances

from .editor import SceneEditor
from .errors import BadQuestionError
from .images import SceneImages
from .page import answer_json, labels_json, page_of
from .scene import ViewedAnswer, ViewedScene

MAX_TEXT = 200  # characters of a text
MAX_NEGATIVES = 20
MAX_PLACE = 1e4  # metres
EXPORTS = {'ply': 'segmentation.ply', 'glb': 'scene.glb', 'json': 'instances.json'}
EncodeText = Callable[[Sequence[str]], NDArray[np.float32]]


class Asker(Protocol):
    """Whatever answers a text about a scene."""

    def ask(self, text: str, negatives: Sequence[str] = ()) -> ViewedAnswer:
        """The answer against phrases for nothing in particular, its own where none are given."""
        ...


class Renderer(Protocol):
    """Whatever draws a scene by itself, beside its points."""

    @property
    def names(self) -> tuple[str, ...]:
        """What can be drawn."""
        ...

    def __call__(self, name: str, eye: NDArray[np.float64], axes: NDArray[np.float64]) -> bytes:
        """A JPEG from a place (3,) and rows (3, 3) right, up and backward."""
        ...


@dataclass(frozen=True, eq=False)
class TextAsker:
    """Compares texts with the masks of a scene.

    Attributes:
        index: of the scene.
        encode: texts → (T, D) unit vectors.
        negatives: (M, D) unit vectors of nothing in particular.
        temperature, threshold: of ``SceneIndex.query``.
    """

    index: SceneIndex
    encode: EncodeText
    negatives: NDArray[np.float32]
    temperature: float = 0.1
    threshold: float = 0.5

    def ask(self, text: str, negatives: Sequence[str] = ()) -> ViewedAnswer:
        """One text's answer; the same alone and among others."""
        result = self.index.query(
            self.encode([text]),
            self.encode(negatives) if negatives else self.negatives,
            temperature=self.temperature,
            threshold=self.threshold,
        )
        ranked = ranked_masks(self.index, result, 0, MAX_RANKED)
        return ViewedAnswer(text, bool(result.found[0]), result.scores[0], ranked)


class LiveScene:
    """What a server is asked about one scene.

    Args:
        scene: as it is drawn.
        world: (N, 3) float64 the points of the whole cloud in the coordinates of its cameras.
        upright_from_world: (3, 3) rotation, and (3,) what is added after it, of the cameras.
        asker: of texts, None where no text can be asked.
        renderer: of pictures beside the points, None without.
        images: None where there are none.
        segmentation: for exports, None where there is none.
        editor: of that segmentation, None where its labels are not corrected here.
        view: a corrected segmentation as it is drawn; comes with the editor.
    """

    def __init__(
        self,
        scene: ViewedScene,
        world: NDArray[np.float64],
        upright_from_world: tuple[NDArray[np.floating], NDArray[np.floating]],
        asker: Asker | None = None,
        images: SceneImages | None = None,
        segmentation: Segmentation | None = None,
        editor: SceneEditor | None = None,
        view: Callable[[Segmentation], ViewedScene] | None = None,
        renderer: Renderer | None = None,
    ) -> None:
        self.scene = scene
        self.renderer = renderer
        self.world = world
        self.asker = asker
        self.images = images
        self.editor = editor
        self._view = view
        self._segmentation = segmentation
        self._one_answer_at_a_time = threading.Lock()  # a network is no place for two threads
        self._one_correction_at_a_time = threading.Lock()
        self._live = self._live_json(*upright_from_world)
        self._page: bytes | None = None

    @property
    def segmentation(self) -> Segmentation | None:
        """As it is now."""
        return self._segmentation if self.editor is None else self.editor.segmentation

    @property
    def page(self) -> bytes:
        """The page of the scene as it is now."""
        if self._page is None:
            self._page = page_of(self.scene, self._live).encode()
        return self._page

    def ask(self, text: object, negatives: object = None) -> dict[str, Json]:
        """Answer a text.

        Args:
            text: to look for.
            negatives: phrases for what it is not; None or [] takes those of the asker.

        Raises:
            BadQuestionError: no text, too long a one, or none can be asked here.
        """
        if self.asker is None:
            raise BadQuestionError('texts need --clip-weights, and images of the scene')
        if not isinstance(negatives, list | None) or len(negatives or ()) > MAX_NEGATIVES:
            raise BadQuestionError(f'expected at most {MAX_NEGATIVES} texts of what it is not')
        wanted, *others = (_checked_text(one) for one in (text, *(negatives or ())))
        with self._one_answer_at_a_time:
            answer = self.asker.ask(wanted, others)
        # the same text against other negatives is another question
        shown = f'{wanted} (not {", ".join(others)})' if others else wanted
        return answer_json(replace(answer, text=shown))

    def render(self, name: object, numbers: Sequence[float]) -> bytes:
        """A JPEG of the scene as it is drawn by itself.

        Args:
            name: of ``renderer.names``.
            numbers: 12 of them: the place (3) of a camera, and its right, up and backward.

        Raises:
            BadQuestionError: nothing is drawn here, not that, or no camera.
        """
        if self.renderer is None or name not in self.renderer.names:
            raise BadQuestionError('no such picture')
        pose = np.array(numbers, np.float64)
        if pose.shape != (12,) or not np.isfinite(pose).all() or np.abs(pose).max() > MAX_PLACE:
            raise BadQuestionError('expected the place and the axes of a camera')
        eye, axes = pose[:3], pose[3:].reshape(3, 3)
        if not np.allclose(axes @ axes.T, np.eye(3), atol=1e-3):
            raise BadQuestionError('expected axes at right angles')
        with self._one_answer_at_a_time:
            return self.renderer(str(name), eye, axes)

    def correct(self, wish: object) -> dict[str, Json]:
        """Correct labels; the new ones of all points, classes and objects.

        Args:
            wish: see ``SceneEditor.correct``.

        Raises:
            BadQuestionError: as there, or labels are not corrected here.
        """
        if self.editor is None or self._view is None:
            raise BadQuestionError('labels of this scene are not corrected here')
        with self._one_correction_at_a_time:
            drawn = self._view(self.editor.correct(wish))
            self.scene = replace(drawn, num_whole=self.scene.num_whole)
            self._page = None
            return labels_json(self.scene)

    def save(self) -> dict[str, Json]:
        """Keep the labels as they are now; ``saved`` says where.

        Raises:
            BadQuestionError: labels are not corrected here, or cannot be written.
        """
        if self.editor is None:
            raise BadQuestionError('labels of this scene are not corrected here')
        try:
            return {'saved': self.editor.save()}
        except OSError as error:
            raise BadQuestionError(f'cannot be saved: {error.strerror}') from error

    def views(self, point: object) -> list[dict[str, Json]]:
        """The images that see a drawn point, each with the place (0…1) of the pixel.

        Raises:
            BadQuestionError: no such point.
        """
        if not isinstance(point, int) or not 0 <= point < len(self.scene.rows):
            raise BadQuestionError('expected the number of a point')
        if self.images is None:
            return []
        seen = self.images.seeing(self.world[self.scene.rows[point]])
        return [{'view': one.view, 'frame': one.frame, 'place': list(one.place)} for one in seen]

    def image(self, view: object) -> bytes:
        """A JPEG.

        Raises:
            BadQuestionError: no such image.
        """
        if (
            self.images is None
            or not isinstance(view, int)
            or not 0 <= view < len(self.images.jpegs)
        ):
            raise BadQuestionError('no such image')
        return self.images.jpegs[view]

    def export(self, kind: object, rows: Sequence[int] | None = None) -> tuple[str, bytes]:
        """Name and content of a file.

        Args:
            kind: of ``EXPORTS``.
            rows: objects to keep, with their points alone; None keeps the whole scene.

        Raises:
            BadQuestionError: no such kind or object, or nothing was segmented.
        """
        result = self.segmentation
        if result is None or not isinstance(kind, str) or kind not in EXPORTS:
            raise BadQuestionError('no such file')
        if rows is not None:
            if not rows or not all(0 <= row < len(result.instances) for row in rows):
                raise BadQuestionError('expected numbers of objects')
            result = select_instances(result, rows)
        write = {'ply': result.to_ply, 'glb': result.to_glb, 'json': result.to_json}[kind]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / EXPORTS[kind]
            write(path)
            return path.name, path.read_bytes()

    def _live_json(
        self, rotation: NDArray[np.floating], shift: NDArray[np.floating]
    ) -> dict[str, Json]:
        """What a page that is served knows besides."""
        cameras: list[Json] = []
        if self.images is not None:
            # rotation and shift bring cameras into the frame that the page draws
            poses = self.images.camera.world_from_cam.double().numpy()  # (V, 4, 4)
            rotations = np.asarray(rotation, np.float64) @ poses[:, :3, :3]
            centres = poses[:, :3, 3] @ np.asarray(rotation, np.float64).T + shift

            height, width = self.images.camera.image_size
            intrinsics = self.images.camera.intrinsics.double().numpy()
            focal = np.broadcast_to(intrinsics[..., 0, 0], len(poses))
            cameras = [
                {
                    'frame': frame,
                    'centre': np.round(centre, 4).tolist(),
                    'axes': np.round(axes.T, 4).tolist(),
                    'size': [height, width],
                    'half': [round(width / 2 / f, 4), round(height / 2 / f, 4)],
                }
                for frame, centre, axes, f in zip(self.images.frames, centres, rotations, focal)
            ]

        return {
            'asks': self.asker is not None,
            'max_text': MAX_TEXT,
            'cameras': cameras,
            'exports': [] if self.segmentation is None else list(EXPORTS),
            'renders': [] if self.renderer is None else list(self.renderer.names),
            'names': [] if self.editor is None else list(self.editor.names),
        }


def _checked_text(text: object) -> str:
    """A text in one line.

    Raises:
        BadQuestionError: no text, or too long a one.
    """
    if not isinstance(text, str) or not text.strip():
        raise BadQuestionError('expected a text')
    if len(text) > MAX_TEXT:
        raise BadQuestionError(f'a text has at most {MAX_TEXT} characters')
    return ' '.join(text.split())
