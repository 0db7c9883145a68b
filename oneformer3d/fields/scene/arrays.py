"""Images, poses and labels in memory as a scene for a field.

Enters: lists of tensors, one of each per view. Leaves: a ``FieldScene``.

Letters: V views, H × W pixels of an image, h × w cells of a feature map, D its width, C classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from oneformer3d.files.names import validate_scene_name
from oneformer3d.lifting import Camera, is_valid_pose
from oneformer3d.lifting.shapes import expect_shape

from .labelled_points import IGNORE
from .scene import FieldScene, ViewContent, check_labels


def scene_from_arrays(
    images: Sequence[Tensor],
    intrinsics: Sequence[Tensor],
    world_from_cam: Sequence[Tensor],
    *,
    # what else the views supervise
    depth: Sequence[Tensor] | None = None,
    semantics: Sequence[Tensor] | None = None,
    instances: Sequence[Tensor] | None = None,
    features: Sequence[Tensor] | Mapping[str, Sequence[Tensor]] | None = None,
    # what the labels mean
    class_names: Sequence[str] = (),
    things: Sequence[int] = (),
    name: str = 'scene',
) -> FieldScene:
    """A scene from what is in memory; images may differ in size.

    Args:
        images: V of (H, W, 3), uint8, or floats 0–1.
        intrinsics: V of (3, 3), each of its own image.
        world_from_cam: V of (4, 4), OpenCV axes, metres.
        depth: V of (H, W) z-depth in metres.
        semantics: V of (H, W) classes, ``IGNORE`` for none.
        instances: V of (H, W) ids, -1 for none.
        features: V of (h, w, D), of CLIP; or such lists by type, as {'CLIP': …, 'DINO': …}.
        class_names: C names of the classes; without them they are numbered.
        things: classes with instances.
        name: of the scene.

    Raises:
        ValueError: lists of different lengths, a pose that is not a rigid motion, sizes or labels
            that do not fit; names the view.
    """
    if not images:
        raise ValueError('images: expected at least one')
    if features is None:
        features = {}
    elif not isinstance(features, Mapping):
        features = {'CLIP': features}
    maps = {'depth': depth, 'semantics': semantics, 'instances': instances}
    cameras = {'intrinsics': intrinsics, 'world_from_cam': world_from_cam}
    for key, values in {**cameras, **maps, **features}.items():
        if values is not None and len(values) != len(images):
            raise ValueError(f'{key}: expected one per image, {len(images)}, got {len(values)}')

    views = []
    for view, (image, pose) in enumerate(zip(images, world_from_cam)):
        if not is_valid_pose(torch.as_tensor(pose)):
            raise ValueError(f'view {view}: its pose is not a finite rigid motion')
        of_view = {key: values[view] for key, values in maps.items() if values is not None}
        distilled = {kind: values[view] for kind, values in features.items()}
        content = view_content(f'view {view}', torch.as_tensor(image), **of_view)
        views.append(replace(content, features=distilled))

    if semantics is not None:
        class_names = class_names or _numbered_classes(views)
        for view, content in enumerate(views):
            check_labels(content.semantics, len(class_names), f'view {view}')
    camera = Camera(
        torch.stack([torch.as_tensor(matrix).float() for matrix in intrinsics]),
        torch.stack([torch.as_tensor(matrix).float() for matrix in world_from_cam]),
        tuple(views[0].rgb.shape[:2]),
    )
    return FieldScene(
        name=validate_scene_name(name),
        frames=tuple(f'{view:05d}' for view in range(len(views))),
        camera=camera,
        read=views.__getitem__,
        has_depth=depth is not None,
        class_names=tuple(class_names),
        things=tuple(things),
    )


def view_content(
    source: str,
    image: Tensor,
    depth: Tensor | None = None,
    semantics: Tensor | None = None,
    instances: Tensor | None = None,
) -> ViewContent:
    """One view's content in the types that fields are fitted to."""
    height, width, _ = expect_shape(f'{source}: image', image, 'H W 3')
    if image.is_floating_point():
        if not (image.min() >= 0 and image.max() <= 1):  # NaN fails too
            raise ValueError(f'{source}: floating point images hold 0–1')
        image = (image * 255).round().to(torch.uint8)

    for key, values in (('depth', depth), ('semantics', semantics), ('instances', instances)):
        if values is not None:
            expect_shape(f'{source}: {key}', values, 'H W', H=height, W=width)
    if depth is not None:
        depth = torch.where(torch.isfinite(depth) & (depth > 0), depth, 0.0).float()
    if semantics is not None:
        if not 0 <= int(semantics.min()) <= int(semantics.max()) <= IGNORE:
            raise ValueError(f'{source}: classes must be within 0…{IGNORE}')
        semantics = semantics.to(torch.uint8)
    if instances is not None:
        instances = instances.to(torch.int32)
    return ViewContent(image, depth, semantics, instances)


def _numbered_classes(views: Sequence[ViewContent]) -> tuple[str, ...]:
    """Names for as many classes as the views show, at least one."""
    maps = [view.semantics for view in views if view.semantics is not None]
    known = [classes[classes != IGNORE] for classes in maps]
    count = 1 + max((int(ids.max()) for ids in known if len(ids)), default=0)
    return tuple(map(str, range(count)))
