"""How well a fitted field shows views it did not learn from, and labels the scan's own points.

Enters: a ``FittedField`` and its scene. Leaves: plain numbers: PSNR in dB, depth error in metres,
mIoU and accuracy in percent, feature cosine.

Letters: H × W pixels, h × w cells of a feature map, D its width, N points, C classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from oneformer3d.lifting import Camera
from oneformer3d.metrics.panoptic import match_segments, panoptic_scores
from oneformer3d.metrics.semantic import confusion_matrix, semantic_scores

from ..fitting.fitted import FittedField
from ..fitting.recipe import SLOW_HEAD
from ..fitting.sampling import view_sampler
from ..fitting.step import best_gains, psnr
from ..rendering.render import render_image
from ..scene.batches import FlatMaps
from ..scene.labelled_points import IGNORE, LabelledPoints
from ..scene.scene import FieldScene
from .instances import query_classes

_EPS = 1e-8
_MIN_WEIGHT = 1e-3  # heads are not queried at samples of less


def evaluate_views(
    fitted: FittedField,
    scene: FieldScene,
    views: Sequence[int],
    on_view: Callable[[], object] | None = None,
) -> dict[str, float]:
    """Means over whole views; PSNR is of the mean squared error of all pixels.

    Args:
        fitted: the field.
        scene: of the views.
        views: indices; none gives an empty dictionary.
        on_view: called after each view.

    Returns:
        'psnr', and 'psnr_aligned' when each view's three colours may be multiplied by the gains
        that fit it best (its exposure cannot be known beforehand); with depth 'psnr_observed' over
        the share 'observed' of pixels whose surface some learnt view saw, 'depth_error' (mean
        absolute) and 'depth_error_median' in metres; with classes 'miou' (of the classes that
        occur) and 'accuracy' of pixels in percent; with features 'feature_cosine', or
        'feature_cosine_<type>' of each where there are several.
    """
    errors, aligned, seen, depth_errors = [], [], [], []
    cosines: dict[str, list[Tensor]] = {}
    confusion = np.zeros((len(fitted.class_names),) * 2, dtype=np.int64)
    for view in views:
        content = scene.read(view)
        camera = scene.view_camera(view, content)
        shown = render_view(fitted, camera)

        rgb, target = shown['rgb'], content.rgb.float() / 255  # (H, W, 3)
        balanced = rgb * best_gains(rgb, target)
        errors.append(squared_errors(rgb.clamp(0, 1), target))
        aligned.append(squared_errors(balanced.clamp(0, 1), target))

        if content.depth is not None:
            measured = (content.depth > 0) & (content.depth <= fitted.settings.far)
            depth_errors.append((shown['depth'] - content.depth).abs()[measured])
        seen.append(_seen_pixels(fitted, camera, content.depth))
        if content.semantics is not None and 'semantics' in shown:
            predicted = shown['semantics'].argmax(-1).flatten().numpy()
            true = content.semantics.flatten().numpy().astype(np.int64)
            confusion += confusion_matrix(predicted, true, len(confusion))
        for name, head in fitted.field.select_heads(None).items():
            if name.startswith('features') and head.feature_type in content.features:
                stored = content.features[head.feature_type]
                cosines.setdefault(name, []).append(_feature_cosine(shown[name], stored))
        if on_view is not None:
            on_view()
    if not errors:
        return {}

    report = {
        'psnr': psnr(float(torch.cat(errors).double().mean())),
        'psnr_aligned': psnr(float(torch.cat(aligned).double().mean())),
    }
    observed = torch.cat(seen)
    if observed.any():
        report['psnr_observed'] = psnr(float(torch.cat(errors)[observed].double().mean()))
        report['observed'] = float(observed.float().mean())
    if sum(map(len, depth_errors)):
        report |= depth_report(torch.cat(depth_errors))
    if confusion.sum():
        report |= _semantic_report(confusion)
    for name, of_views in cosines.items():
        label = name.replace('features', 'feature_cosine')
        report[label] = float(torch.cat(of_views).mean())
    return report


def evaluate_points(fitted: FittedField, points: LabelledPoints) -> dict[str, float]:
    """Classes at the scan's points, where both the scan and the field have an answer.

    Returns:
        'miou', 'accuracy' in percent over labelled and observed points, 'observed' and, where scan
        and field have instances, 'instance_purity': share of the points of instances whose instance
        is the one that most of their predicted instance's points are of, and 'pq', 'pq_things',
        'pq_stuff' in percent; empty without labels.
    """
    if points.semantic is None or 'semantics' not in fitted.field.head_nets:
        return {}
    result = query_classes(fitted, points.xyz)
    labels, observed = result['labels'].numpy(), result['observed'].numpy()
    true = np.where(observed, points.semantic.numpy(), IGNORE)
    confusion = confusion_matrix(labels, true, len(fitted.class_names))

    report = {**_semantic_report(confusion), 'observed': float(observed.mean())}
    if 'instances' in result and points.instance is not None:
        report['instance_purity'] = _purity(result['instances'], points.instance)
        truth = torch.from_numpy(true), points.instance
        report |= panoptic_report([(result['labels'], result['instances'], *truth)], fitted)
    return report


def evaluate_view_instances(
    fitted: FittedField, scene: FieldScene, views: Sequence[int], step: int = 3
) -> dict[str, float]:
    """Panoptic quality of views: what the field says where it sees their pixels end.

    Every ``step``-th row and column counts. Instances are found in all views together, so that one
    keeps its id from view to view; truth is compared view by view.

    Returns:
        'pq', 'pq_things', 'pq_stuff' in percent; empty where field or views have no instances.
    """
    if 'instances' not in fitted.field.head_nets or not views:
        return {}
    points, truths = [], []
    for view in views:
        content = scene.read(view)
        if content.instances is None or content.semantics is None:
            return {}
        camera = scene.view_camera(view, content)
        depth = render_view(fitted, camera, ())['depth']  # (H, W)
        points.append(camera.unproject(depth)[::step, ::step].reshape(-1, 3))
        maps = content.semantics, content.instances
        truths.append([values[::step, ::step].flatten().long() for values in maps])

    found = query_classes(replace(fitted, observations=None), torch.cat(points))
    lengths = [len(chunk) for chunk in points]
    predicted = (found[name].split(lengths) for name in ('labels', 'instances'))
    return panoptic_report(
        [(*mine, *true) for mine, true in zip(zip(*predicted), truths, strict=True)], fitted
    )


def panoptic_report(
    scenes: Sequence[tuple[Tensor, Tensor, Tensor, Tensor]], fitted: FittedField
) -> dict[str, float]:
    """'pq', 'pq_things' and 'pq_stuff' in percent, those of classes that occur.

    Args:
        scenes: predicted class and instance, true class (``IGNORE`` is void) and instance, (N,)
            each; stuff is one segment of its class.
        fitted: whose classes and things they are.
    """
    num_classes = len(fitted.class_names)
    things = fitted.things or tuple(range(num_classes))
    counts = []
    for arrays in scenes:
        classes, ids, true_classes, true_ids = (values.numpy() for values in arrays)
        is_thing, is_true_thing = np.isin(classes, things), np.isin(true_classes, things)
        ids, true_ids = np.where(is_thing, ids, 0), np.where(is_true_thing, true_ids, 0)
        counts.append(match_segments(classes, ids, true_classes, true_ids, num_classes))

    stuff = [label for label in range(num_classes) if label not in things]
    means = panoptic_scores(counts, things, stuff).means
    names = {'pq': 'PQ', 'pq_things': 'PQ_things', 'pq_stuff': 'PQ_stuff'}
    return {name: 100 * means[of] for name, of in names.items() if not np.isnan(means[of])}


@torch.no_grad()
def render_view(
    fitted: FittedField, camera: Camera, heads: Sequence[str] | None = None
) -> dict[str, Tensor]:
    """Maps (H, W, …) of all heads that are drawn, or of those named, on the CPU."""
    field, settings = fitted.field.eval(), fitted.settings
    if heads is None:
        heads = [name for name in field.head_nets if name not in ('language', SLOW_HEAD)]
    image = render_image(
        field,
        camera.to(field.unit_from_world.device),
        view_sampler(fitted),
        settings.near,
        settings.far,
        heads,
        occupancy=fitted.occupancy,
        min_weight=_MIN_WEIGHT,
    )
    return {name: values.float().cpu() for name, values in image.as_dict().items()}


def squared_errors(rgb: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of each pixel's colours (H, W, 3) → (H·W,)."""
    return ((rgb - target) ** 2).mean(-1).flatten()


def _seen_pixels(fitted: FittedField, camera: Camera, depth: Tensor | None) -> Tensor:
    """Pixels (H·W,) whose measured surface some learnt view observed; none without depth."""
    if depth is None or fitted.observations is None:
        return torch.zeros(camera.image_size, dtype=torch.bool).flatten()
    observed = fitted.observations.observed(camera.unproject(depth).reshape(-1, 3))
    return observed & (depth > 0).flatten()


def depth_report(errors: Tensor) -> dict[str, float]:
    """Mean and median of absolute errors in metres."""
    return {'depth_error': float(errors.mean()), 'depth_error_median': float(errors.median())}


def _feature_cosine(shown: Tensor, stored: Tensor) -> Tensor:
    """Cosine at each pixel between a rendered map (H, W, D) and a stored one (h, w, D)."""
    height, width = shown.shape[:2]
    pixel = torch.arange(height * width)
    uv = torch.stack((pixel % width, pixel // width), dim=-1).float()  # (H·W, 2)
    size = torch.tensor([height, width]).expand(len(uv), 2)
    target = FlatMaps([stored]).sample(torch.zeros_like(pixel), uv, size)  # (H·W, D)
    return F.cosine_similarity(shown.flatten(0, 1), target, dim=-1, eps=_EPS)


def _semantic_report(confusion: np.ndarray) -> dict[str, float]:
    scores = semantic_scores(confusion)
    present = confusion.sum(axis=1) > 0
    return {'miou': 100 * float(scores.iou[present].mean()), 'accuracy': 100 * scores.acc}


def _purity(predicted: Tensor, true: Tensor) -> float:
    """Share of points whose true instance is the most frequent of their predicted one."""
    both = (predicted >= 0) & (true >= 0)
    if not both.any():
        return 0.0
    names, row = predicted[both].unique(return_inverse=True)
    labels, column = true[both].unique(return_inverse=True)
    counts = torch.zeros(len(names), len(labels))
    counts.index_put_((row, column), torch.ones(len(row)), accumulate=True)
    return float(counts.amax(-1).sum() / counts.sum())
