"""A fitted field in the page: its surfaces as a cloud, text at every point, and rendered views.

Enters: a ``FittedField`` and the rotation that puts z up. Leaves: a ``ViewedScene`` whose masks are
its points, so that each of them answers a text by itself, and JPEGs of what the field looks like
from where the page's camera stands. n points, C classes.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from oneformer3d.fields.asking.evaluate import render_view
from oneformer3d.fields.asking.instances import query_classes
from oneformer3d.fields.asking.pictures import make_painters
from oneformer3d.fields.asking.text import TextQuery, query_lerf_with_text
from oneformer3d.fields.fitting.fitted import FittedField
from oneformer3d.fields.fitting.surfaces import surface_points
from oneformer3d.lifting.camera import Camera
from oneformer3d.visualization.palette import instance_colors

from .scene import NONE, ViewedAnswer, ViewedClass, ViewedScene, view_scene

MAX_FIELD_POINTS = 20_000  # each is compared with a text at up to thirty sizes
FIELD_OF_VIEW = np.radians(45)  # of the page's camera, from the top of a picture to its bottom
_SIZE = (96, 128)  # H, W of a rendered view
_QUALITY = 85
EncodePhrases = Callable[[Sequence[str], Sequence[str]], TextQuery]


@dataclass(frozen=True, eq=False)
class FieldCloud:
    """Points (n, 3) of a field's surfaces in its world, and the rotation (3, 3) that puts z up."""

    fitted: FittedField
    points: Tensor
    upright_from_world: NDArray[np.float64]


def field_cloud(fitted: FittedField, upright_from_world: NDArray[np.float64]) -> FieldCloud:
    """What the views of a field observed, as a cloud.

    Raises:
        ValueError: the field does not know what its views observed, or they observed nothing.
    """
    points = surface_points(fitted)
    if not len(points):
        raise ValueError('the views of the field observed no surface')
    generator = torch.Generator().manual_seed(fitted.settings.seed)
    chosen = torch.randperm(len(points), generator=generator)[:MAX_FIELD_POINTS]
    return FieldCloud(fitted, points[chosen.sort().values], upright_from_world)


def view_field(title: str, cloud: FieldCloud) -> ViewedScene:
    """The cloud in the field's own colours, with its classes where it knows some."""
    points = cloud.points
    upright = (points.double().numpy() @ cloud.upright_from_world.T).astype(np.float32)
    rows = np.arange(len(points))
    scene = view_scene(title, upright, surface_colors(cloud), mask_of_point=rows)
    scene = replace(scene, pieces=np.zeros((0, 3), np.uint8))  # a colour of its own says nothing
    fitted = cloud.fitted
    if not fitted.class_names:
        return scene

    labels = query_classes(fitted, points)['labels'].numpy().astype(np.int64)  # (n,)
    num_classes = len(fitted.class_names)
    semantic = np.where((labels >= 0) & (labels < num_classes), labels, NONE)
    counts = np.bincount(semantic[semantic >= 0], minlength=num_classes)
    own = instance_colors(np.arange(num_classes))
    palette = own if fitted.palette is None else fitted.palette  # (C, 3)
    classes = tuple(
        ViewedClass(name, (int(r), int(g), int(b)), int(count))
        for name, (r, g, b), count in zip(fitted.class_names, palette, counts)
    )
    return replace(scene, semantic=semantic, classes=classes)


@torch.no_grad()
def surface_colors(cloud: FieldCloud) -> NDArray[np.uint8]:
    """Colours (n, 3) of the points as the nearest learnt view saw them."""
    field, points = cloud.fitted.field.eval(), cloud.points
    observations = cloud.fitted.observations
    if observations is None:
        raise ValueError('the field does not know what its views observed')
    centres = observations.camera.world_from_cam[:, :3, 3]  # (V, 3)
    nearest = torch.cdist(points, centres.to(points)).argmin(1)
    directions = F.normalize(points - centres.to(points)[nearest], dim=1)

    device = field.unit_from_world.device
    positions = field.scene_box.to_unit(points.to(device))
    _, hidden = field.density(positions)
    rgb = field.heads(hidden, positions, directions.to(device), names=('rgb',))['rgb']
    return (255 * rgb.float().cpu().numpy().clip(0, 1)).round().astype(np.uint8)


@dataclass(frozen=True, eq=False)
class FieldAsker:
    """Compares texts with every point of a field.

    Attributes:
        cloud: of the field.
        encode: texts, and phrases for nothing in particular → their vectors.
        negatives: the phrases where the page names none.
        temperature, threshold: of ``query_lerf_with_text``.
    """

    cloud: FieldCloud
    encode: EncodePhrases
    negatives: tuple[str, ...]
    temperature: float = 0.1
    threshold: float = 0.5

    def ask(self, text: str, negatives: Sequence[str] = ()) -> ViewedAnswer:
        """A score (n,) of every point; nothing is ranked, for a field knows no objects."""
        query = self.encode([text], list(negatives) or list(self.negatives))
        result = query_lerf_with_text(
            self.cloud.fitted,
            self.cloud.points,
            query.vectors,
            self.threshold,
            negatives=query.negatives,
            temperature=self.temperature,
        )
        scores = result['relevancy_matrix'][:, 0].float().cpu().numpy()  # (n,)
        return ViewedAnswer(text, bool(result['valid_mask'].any()), scores, ())


class FieldRenderer:
    """Pictures of a field from anywhere.

    Args:
        cloud: of the field.
    """

    def __init__(self, cloud: FieldCloud) -> None:
        self.cloud = cloud
        self.painters = make_painters(cloud.fitted)

    @property
    def names(self) -> tuple[str, ...]:
        """What can be drawn: rgb, depth, and what the field knows besides."""
        return tuple(self.painters)

    def __call__(self, name: str, eye: NDArray[np.float64], axes: NDArray[np.float64]) -> bytes:
        """A JPEG.

        Args:
            name: of ``names``.
            eye: (3,) metres, in the upright frame of the page.
            axes: (3, 3) rows right, up and backward of the page's camera there.
        """
        camera = self._camera(eye, axes)
        heads = [head for head in ('rgb', name) if head in self.cloud.fitted.field.head_nets]
        pixels = self.painters[name](render_view(self.cloud.fitted, camera, heads))
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, 'JPEG', quality=_QUALITY)
        return file.getvalue()

    def _camera(self, eye: NDArray[np.float64], axes: NDArray[np.float64]) -> Camera:
        """The page's camera in OpenCV's axes (x right, y down, z forward) and the field's world."""
        height, width = _SIZE
        focal = height / 2 / np.tan(FIELD_OF_VIEW / 2)
        intrinsics = [[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]]
        right, up, backward = axes
        world_from_upright = self.cloud.upright_from_world.T
        pose = np.eye(4)
        pose[:3, :3] = world_from_upright @ np.stack([right, -up, -backward], axis=1)
        pose[:3, 3] = world_from_upright @ eye
        return Camera(torch.tensor(intrinsics).float(), torch.from_numpy(pose).float(), _SIZE)
