"""Between a field and the segmentor: a scan labelled by a field, and labels to train on.

Enters: a scan's points with images and cameras, or a field. Leaves: labelled points
(``segment_scan_with_field``), or label files that the segmentor is trained with
(``write_pseudo_labels``). The other way round, a segmentor's classes of points go into a fit as a
``fitting.prior.PointPrior``.

Letters: N points, C classes, V views.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import print_log
from torch import Tensor

from oneformer3d.data.class_tables import ClassTable
from oneformer3d.files.atomic import atomic_write_bytes
from oneformer3d.files.names import validate_scene_name
from oneformer3d.lifting import invert_pose

from ..fitting.fitted import FittedField
from ..fitting.loop import OnStep, fit_field
from ..fitting.prior import prior_of_labels
from ..fitting.settings import FitSettings
from ..networks.field import Field
from ..scene.arrays import scene_from_arrays
from ..scene.labelled_points import IGNORE, LabelledPoints
from ..scene.scene import FieldScene
from .instances import query_classes
from .query import query_nerf_at_points

CONVENTIONS = ('world_from_cam', 'cam_from_world', 'opengl')
_OPENGL_FROM_OPENCV = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))
_VIEW_KEYS = ('image', 'depth', 'semantics')


def segment_scan_with_field(
    pc_data: Mapping[str, Any],
    images: Sequence[Tensor | Mapping[str, Tensor]],
    camera_params: Sequence[tuple[Tensor, Tensor]],
    nerf_model: FittedField | Field | None = None,
    training_iterations: int = 10000,
    convention: str = 'world_from_cam',
    *,
    num_classes: int | None = None,
    settings: FitSettings | None = None,
    out: str | Path | None = None,
    device: torch.device | str = 'cpu',
    on_step: OnStep | None = None,
) -> dict[str, Any]:
    """Fit a field to a scan's images, unless there is one, and label the scan's points by it.

    Classes are learnt from label images, and from the points' own labels where ``pc_data`` has some
    (255 = none): so a scan with a few labels becomes labelled where it was observed. Without any
    labels the field learns colour and depth alone: every point is 255 with confidence 0, and a
    warning says so. Images without depth get that of the points (``FitSettings.depth_of_points``).

    Args:
        pc_data: 'pos' (N, 3) world coordinates in metres, perhaps 'labels' (N,); left as it is.
        images: V of (H, W, 3), uint8 or floats 0–1, or mappings with 'image' and perhaps
            'semantics' (H, W) with 255 for none and 'depth' (H, W) in metres. Not needed with a
            model.
        camera_params: V of intrinsics (3, 3) and a pose (4, 4).
        nerf_model: a field fitted before.
        training_iterations: steps of the optimiser.
        convention: of the poses: 'world_from_cam' with OpenCV axes (x right, y down, z forward),
            its inverse 'cam_from_world', or 'opengl': camera to world with y up, z backward.
        num_classes: C; None takes as many as the labels show.
        settings: of the fit; None takes the defaults.
        out: folder of the fit's checkpoint, from which the same call goes on; None writes nothing.
        device: to fit on.
        on_step: called after every step, see ``fit_field``.

    Returns:
        A copy of ``pc_data`` with 'labels' (N,) int64, 255 where no image observed the point, and
        'label_confidence' (N,), and the 'field' itself, to render or to be asked again.

    Raises:
        ValueError: images and cameras that do not belong together.
    """
    points = torch.as_tensor(pc_data['pos']).float()  # (N, 3)
    if nerf_model is None:
        labels = pc_data.get('labels')
        scene = _scene(images, camera_params, convention, labels, num_classes)
        scene = replace(scene, points=LabelledPoints(points))
        if not scene.class_names:
            message = 'no labels of points or images: colour and depth alone, all points are 255'
            print_log(message, logger='current', level=logging.WARNING)
        prior = prior_of_labels(points, labels, len(scene.class_names))
        settings = settings or FitSettings(holdout_every=0, labels='none')
        settings = replace(settings, steps=training_iterations)
        nerf_model = fit_field(scene, settings, out, prior=prior, device=device, on_step=on_step)

    field = nerf_model.field if isinstance(nerf_model, FittedField) else nerf_model
    if 'semantics' not in field.head_nets:
        return {**_unlabelled(pc_data, len(points)), 'field': nerf_model}
    result = query_nerf_at_points(nerf_model, points)
    return {
        **pc_data,
        'labels': result['labels'],
        'label_confidence': result['confidence'] * result['semantic_confidence'],
        'field': nerf_model,
    }


def create_nerf_dataset(
    images: Sequence[Tensor | Mapping[str, Tensor]],
    camera_params: Sequence[tuple[Tensor, Tensor]],
    convention: str = 'world_from_cam',
) -> list[dict[str, Tensor]]:
    """Items for ``train_semantic_nerf`` from V images and cameras.

    Args:
        images, camera_params, convention: as of ``segment_scan_with_field``; images without
            'semantics' get 255 everywhere and teach colour alone.

    Returns:
        V items of 'image', 'semantics', 'intrinsics', 'extrinsics' ``world_from_cam`` and perhaps
        'depth'.

    Example:
        >>> image = torch.zeros(2, 3, 3)
        >>> item = create_nerf_dataset([image], [(torch.eye(3), torch.eye(4))])[0]
        >>> item['semantics']
        tensor([[255, 255, 255],
                [255, 255, 255]])
    """
    items = []
    for view, (intrinsics, pose) in zip(_views(images, camera_params), camera_params, strict=True):
        nothing = torch.full(view['image'].shape[:2], IGNORE)
        items.append({
            'semantics': nothing,
            **view,
            'intrinsics': torch.as_tensor(intrinsics).float(),
            'extrinsics': world_from_cam(pose, convention),
        })  # fmt: skip
    return items


def world_from_cam(pose: Tensor, convention: str) -> Tensor:
    """A pose (4, 4) of a convention → camera to world with OpenCV axes."""
    if convention not in CONVENTIONS:
        raise ValueError(f'convention: expected one of {CONVENTIONS}, got {convention!r}')
    pose = torch.as_tensor(pose).float()
    if convention == 'cam_from_world':
        return invert_pose(pose)
    return pose @ _OPENGL_FROM_OPENCV if convention == 'opengl' else pose


def write_pseudo_labels(
    fitted: FittedField,
    points: Tensor,
    root: str | Path,
    scene: str,
    table: ClassTable,
    min_confidence: float = 0.5,
) -> dict[str, float]:
    """Write ``semantic_mask/<scene>.bin`` and ``instance_mask/<scene>.bin`` from a field.

    Args:
        fitted: with classes in the table's order.
        points: (N, 3) in the order of the scene's point file.
        root: data root that the files are written into.
        scene: name.
        table: its raw ids are written, 0 for points of less confidence.
        min_confidence: least product of opacity and class probability.

    Returns:
        'labelled' and 'observed', shares of the points.

    Raises:
        ValueError: a field with other classes than the table.
    """
    if fitted.class_names != table.classes:
        raise ValueError(
            f'the field has classes {fitted.class_names[:3]}…, the table {table.name} has others'
        )
    validate_scene_name(scene)

    result = query_classes(fitted, points)
    confidence = result['confidence'] * result['semantic_confidence']  # (N,)
    keep = (confidence >= min_confidence) & (result['labels'] != IGNORE)
    labels = torch.where(keep, result['labels'], table.ignore_index)
    instances = torch.full((len(points),), -1)
    if 'instances' in result:
        instances = torch.where(keep, result['instances'], -1)

    # on disk are raw ids, and instances count from 1
    raw = table.raw_from_contiguous(labels.numpy())
    for folder, ids in (('semantic_mask', raw), ('instance_mask', instances.numpy() + 1)):
        content = np.ascontiguousarray(ids, dtype=np.int64).tobytes()
        atomic_write_bytes(Path(root) / folder / f'{scene}.bin', content)
    return {
        'labelled': float(keep.float().mean()),
        'observed': float(result['observed'].float().mean()),
    }


def _scene(
    images: Sequence[Tensor | Mapping[str, Tensor]],
    camera_params: Sequence[tuple[Tensor, Tensor]],
    convention: str,
    labels: Tensor | None,
    num_classes: int | None,
) -> FieldScene:
    views = _views(images, camera_params)
    columns = {key: [view[key] for view in views] for key in (views[0] if views else ())}

    # as many classes as images and points show
    if num_classes is None:
        given = [*columns.get('semantics', []), *([] if labels is None else [labels])]
        known = [values[values != IGNORE] for values in map(torch.as_tensor, given)]
        num_classes = 1 + max((int(v.max()) for v in known if v.numel()), default=-1)
    return scene_from_arrays(
        columns.get('image', []),
        [intrinsics for intrinsics, _ in camera_params],
        [world_from_cam(pose, convention) for _, pose in camera_params],
        depth=columns.get('depth'),
        semantics=columns.get('semantics'),
        class_names=tuple(map(str, range(num_classes))),
        name='scan',
    )


def _views(
    images: Sequence[Tensor | Mapping[str, Tensor]], camera_params: Sequence[Any]
) -> list[dict[str, Tensor]]:
    """Every image as a mapping, checked to hold the same as the others and to have a camera."""
    if len(images) != len(camera_params):
        raise ValueError(f'{len(images)} images, but {len(camera_params)} cameras')
    views = [dict(v) if isinstance(v, Mapping) else {'image': v} for v in images]
    for number, view in enumerate(views):
        if set(view) - set(_VIEW_KEYS) or 'image' not in view or set(view) != set(views[0]):
            raise ValueError(
                f'image {number}: expected {_VIEW_KEYS}, the same of each: {set(view)}'
            )
    return views


def _unlabelled(pc_data: Mapping[str, Any], num_points: int) -> dict[str, Any]:
    nothing, zero = torch.full((num_points,), IGNORE), torch.zeros(num_points)
    return {**pc_data, 'labels': nothing, 'label_confidence': zero}
