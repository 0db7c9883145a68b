"""How well a fitted field shows views it did not learn from, and labels the scan's own points.

Enters: a ``FittedField`` and its scene. Leaves: plain numbers: PSNR in dB, depth error in metres,
mIoU and accuracy in percent, feature cosine. A baseline beside it: the nearest learnt view, moved
over by its own depth.

Letters: V views, H × W pixels, N points, C classes.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from oneformer3d.lifting import Camera
from oneformer3d.metrics.semantic import confusion_matrix, semantic_scores

from ..fitting.fitted import FittedField
from ..fitting.sampling import view_sampler
from ..fitting.step import best_gains, psnr
from ..rendering.render import render_image
from ..scene.batches import FlatMaps
from ..scene.labelled_points import IGNORE, LabelledPoints
from ..scene.scene import FieldScene
from .query import instances_at_points, query_nerf_at_points

_EPS = 1e-8
_MIN_WEIGHT = 1e-3  # samples of less are not asked for colours and the like


def evaluate_views(
    fitted: FittedField,
    scene: FieldScene,
    views: Sequence[int],
    on_view: Callable[[], None] | None = None,
) -> dict[str, float]:
    """Means over whole views; PSNR is of the mean squared error of all pixels.

    Args:
        fitted: the field.
        scene: of the views.
        views: indices; none gives an empty dictionary.
        on_view: called after each view.

    Returns:
        'psnr', and 'psnr_aligned' when each view's three colours may be multiplied by the gains
        that fit it best (its exposure cannot be known beforehand); with depth 'depth_error' (mean
        absolute) and 'depth_error_median' in metres; with classes 'miou' (of the classes that
        occur) and 'accuracy' of pixels in percent; with features 'feature_cosine'.
    """
    errors, aligned, depth_errors, cosines = [], [], [], []
    confusion = np.zeros((len(fitted.class_names),) * 2, dtype=np.int64)
    for view in views:
        content = scene.read(view)
        camera = scene.view_camera(view, content)
        shown = render_view(fitted, camera)
        target = content.rgb.float() / 255
        errors.append(((shown['rgb'].clamp(0, 1) - target) ** 2).mean(-1).flatten())
        balanced = shown['rgb'] * best_gains(shown['rgb'], target)
        aligned.append(((balanced.clamp(0, 1) - target) ** 2).mean(-1).flatten())
        if content.depth is not None:
            there = (content.depth > 0) & (content.depth <= fitted.settings.far)
            depth_errors.append((shown['depth'] - content.depth).abs()[there])
        if content.semantics is not None and 'semantics' in shown:
            predicted = shown['semantics'].argmax(-1).flatten().numpy()
            true = content.semantics.flatten().numpy().astype(np.int64)
            confusion += confusion_matrix(predicted, true, len(confusion))
        if content.features is not None and 'features' in shown:
            cosines.append(_feature_cosine(shown['features'], content.features))
        if on_view is not None:
            on_view()
    if not errors:
        return {}
    report = {
        'psnr': psnr(float(torch.cat(errors).double().mean())),
        'psnr_aligned': psnr(float(torch.cat(aligned).double().mean())),
    }
    if depth_errors and sum(map(len, depth_errors)):
        together = torch.cat(depth_errors)
        report['depth_error'] = float(together.mean())
        report['depth_error_median'] = float(together.median())
    if confusion.sum():
        report |= _semantic_report(confusion)
    if cosines:
        report['feature_cosine'] = float(torch.cat(cosines).mean())
    return report


def evaluate_points(
    fitted: FittedField, points: LabelledPoints, with_instances: bool = False
) -> dict[str, float]:
    """Classes at the scan's points, where both the scan and the field have an answer.

    Returns:
        'miou', 'accuracy' in percent over labelled and observed points, 'observed' and, with
        instances, 'instance_purity': share of the points of instances whose instance is the one
        that most of their predicted instance's points are of; empty without labels.
    """
    if points.semantic is None or 'semantics' not in fitted.field.head_nets:
        return {}
    query = instances_at_points if with_instances else query_nerf_at_points
    result = query(fitted, points.xyz)
    labels, observed = result['labels'].numpy(), result['observed'].numpy()
    true = np.where(observed, points.semantic.numpy(), IGNORE)
    confusion = confusion_matrix(labels, true, len(fitted.class_names))
    report = {**_semantic_report(confusion), 'observed': float(observed.mean())}
    if with_instances and points.instance is not None:
        report['instance_purity'] = _purity(result['instances'], points.instance)
    return report


@torch.no_grad()
def render_view(
    fitted: FittedField, camera: Camera, heads: Sequence[str] | None = None
) -> dict[str, Tensor]:
    """Maps (H, W, …) of all heads but language, or of those named, on the CPU."""
    field, settings = fitted.field.eval(), fitted.settings
    if heads is None:
        heads = [name for name in field.head_nets if name != 'language']
    device = field.unit_from_world.device
    shown = render_image(
        field,
        camera.to(device),
        view_sampler(fitted),
        settings.near,
        settings.far,
        heads,
        occupancy=fitted.occupancy,
        min_weight=_MIN_WEIGHT,
    )
    return {name: value.float().cpu() for name, value in shown.as_dict().items()}


def nearest_view_baseline(
    scene: FieldScene, learnt: Sequence[int], views: Sequence[int]
) -> dict[str, float]:
    """What is known without any field: the nearest learnt view moved over by its depth.

    Every pixel with depth of the nearest view goes where it is seen from the other camera, the
    nearest one winning; holes take the value of the pixel beside them.

    Returns:
        'psnr' and 'psnr_aligned' over all pixels, 'psnr_covered' over those that are no holes,
        'covered' share, and 'depth_error', 'depth_error_median' in metres where there is depth.
    """
    errors, aligned, covered, depth_errors = [], [], [], []
    for view in views:
        content = scene.read(view)
        nearest = nearest_camera(scene.camera, learnt, view)
        rgb, depth, found = reproject(scene, nearest, scene.view_camera(view, content))
        target = content.rgb.float() / 255
        errors.append(((rgb - target) ** 2).mean(-1).flatten())
        aligned.append(((rgb * best_gains(rgb, target) - target) ** 2).mean(-1).flatten())
        covered.append(found.flatten())
        depth_errors.append((depth - content.depth).abs()[content.depth > 0])
    if not errors:
        return {}
    error, hit, depth_error = (torch.cat(rows) for rows in (errors, covered, depth_errors))
    return {
        'psnr': psnr(float(error.mean())),
        'psnr_aligned': psnr(float(torch.cat(aligned).mean())),
        'psnr_covered': psnr(float(error[hit].mean())),
        'covered': float(hit.float().mean()),
        'depth_error': float(depth_error.mean()),
        'depth_error_median': float(depth_error.median()),
    }


def nearest_camera(camera: Camera, candidates: Sequence[int], view: int) -> int:
    """The candidate that looks from nearest: metres between centres plus radians between axes."""
    poses = camera.world_from_cam
    centre = (poses[list(candidates), :3, 3] - poses[view, :3, 3]).norm(dim=-1)
    cosine = (poses[list(candidates), :3, 2] * poses[view, :3, 2]).sum(-1)
    return candidates[int((centre + torch.acos(cosine.clamp(-1, 1))).argmin())]


def reproject(scene: FieldScene, source: int, camera: Camera) -> tuple[Tensor, Tensor, Tensor]:
    """A view's pixels as another camera sees them: rgb (H, W, 3), depth, and where they fell."""
    content = scene.read(source)
    own = scene.view_camera(source, content)
    there = content.depth > 0
    uv, z = camera.project(own.unproject(content.depth)[there])
    height, width = camera.image_size
    column, row = (uv + 0.5).floor().long().unbind(-1)
    inside = (z > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    pixel, z = (row * width + column)[inside], z[inside]
    order = torch.argsort(z, descending=True)  # the last one written is the nearest
    rgb, depth = torch.zeros(height * width, 3), torch.zeros(height * width)
    # numpy keeps the last of equal indices, torch promises nothing
    depth.numpy()[pixel[order].numpy()] = z[order].numpy()
    colors = (content.rgb[there].float() / 255)[inside]
    rgb.numpy()[pixel[order].numpy()] = colors[order].numpy()
    found = (depth > 0).view(height, width)
    if not found.any():
        return rgb.view(height, width, 3), depth.view(height, width), found
    nearest = distance_transform_edt(~found.numpy(), return_distances=False, return_indices=True)
    index = torch.from_numpy(nearest[0].astype(np.int64) * width + nearest[1]).flatten()
    return rgb[index].view(height, width, 3), depth[index].view(height, width), found


def _feature_cosine(shown: Tensor, stored: Tensor) -> Tensor:
    """Cosine at each pixel between a rendered map (H, W, D) and a stored one (h, w, D)."""
    height, width = shown.shape[:2]
    pixel = torch.arange(height * width)
    uv = torch.stack((pixel % width, pixel // width), dim=-1).float()
    size = torch.tensor([height, width]).expand(len(uv), 2)
    target = FlatMaps([stored]).sample(torch.zeros_like(pixel), uv, size)
    return F.cosine_similarity(shown.flatten(0, 1), target, dim=-1, eps=_EPS)


def _semantic_report(confusion: np.ndarray) -> dict[str, float]:
    scores = semantic_scores(confusion)
    present = confusion.sum(axis=1) > 0
    return {'miou': 100 * float(scores.iou[present].mean()), 'accuracy': 100 * scores.acc}


def _purity(found: Tensor, true: Tensor) -> float:
    both = (found >= 0) & (true >= 0)
    if not both.any():
        return 0.0
    names, row = found[both].unique(return_inverse=True)
    labels, column = true[both].unique(return_inverse=True)
    counts = torch.zeros(len(names), len(labels))
    counts.index_put_((row, column), torch.ones(len(row)), accumulate=True)
    return float(counts.amax(-1).sum() / counts.sum())
