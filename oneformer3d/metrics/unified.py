"""Semantic, instance and panoptic scores of one evaluation, adapted to mmengine.

Enters: mmengine's data samples as dictionaries, each with ``pred_pts_seg`` and
``eval_ann_info`` (arrays or tensors). Leaves: one dictionary of fractions in 0…1 and tables
in the log. Each scene is reduced to a ``SceneSummary`` at once, so memory does not grow with
masks and ranks exchange kilobytes.

N points, K predicted instances, C semantic classes (label C = unlabeled), I instance classes.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from terminaltables import AsciiTable

from oneformer3d.data.class_tables import ClassTable, get_class_table
from oneformer3d.registry import METRICS

from .instance import InstanceMatches, instance_scores, match_instances
from .panoptic import PanopticCounts, dense_index, match_segments, panoptic_scores
from .semantic import confusion_matrix, semantic_scores

TASKS = ('semantic', 'instance', 'panoptic')


@dataclass(frozen=True)
class SceneSummary:
    """What one scene contributes; a task that is not evaluated is None.

    ``confusion`` holds the flat indices and the counts of the non-zero cells of the (C, C)
    confusion matrix: with 200 classes the full matrix would outweigh everything else.
    """

    confusion: tuple[np.ndarray, np.ndarray] | None
    instance: InstanceMatches | None
    panoptic: PanopticCounts | None


@METRICS.register_module()
class UnifiedSegMetric(BaseMetric):
    """mIoU, AP and PQ of the segmentor's results.

    Each data sample holds ``eval_ann_info`` with ``pts_semantic_mask`` (N,) in 0…C and
    ``pts_instance_mask`` (N,), −1 = none, and ``pred_pts_seg`` with

    - ``pts_semantic_mask``: [semantic (N,), panoptic semantic (N,)], both in 0…C−1;
    - ``pts_instance_mask``: [masks (K, N) bool, panoptic ids (N,)];
    - ``instance_labels`` (K,) in 0…I−1 and ``instance_scores`` (K,).

    A true instance has the class of most of its points. Points without an instance of an
    instance class are void for AP. Thing points without an instance are void for PQ, and all
    points of a stuff class form one segment.

    Results (fractions, NaN where nothing can be measured): ``semantic/{mIoU,acc,mAcc}``,
    ``instance/{AP,AP50,AP25}``, ``panoptic/{PQ,SQ,RQ}`` and the latter three with
    ``_things`` and ``_stuff``; with ``per_class`` also ``semantic/IoU/<class>``,
    ``instance/{AP,AP50,AP25}/<class>`` and ``panoptic/{PQ,SQ,RQ}/<class>``. Panoptic means
    are over the classes that occur; ``panoptic_mmdet3d/…`` has the same names with absent
    classes counted as 0, as mmdet3d does. The log says why a mean AP is NaN.

    Args:
        class_table: name of a class table or the table itself; by default the dataset's
            ``metainfo['class_table']``.
        min_region_size: least number of points of an instance, true or predicted, for AP.
        min_num_points: smaller segments are neither missed nor false for PQ.
        tasks: which of 'semantic', 'instance' and 'panoptic' to evaluate; a sample needs only
            what these read (for 'semantic' alone, ``pts_semantic_mask`` may be one array).
        per_class: also return every class's numbers; the log always shows them.
        collect_device, prefix, collect_dir: see mmengine's ``BaseMetric``.

    Raises:
        ValueError: unknown task; while processing, a field that is missing, has the wrong
            length or holds labels outside the class table (the message names the scene).
    """

    def __init__(
        self,
        class_table: str | ClassTable | None = None,
        min_region_size: int = 100,
        min_num_points: int = 1,
        tasks: Sequence[str] = TASKS,
        per_class: bool = False,
        collect_device: str = 'cpu',
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        if not tasks or not set(tasks) <= set(TASKS):
            raise ValueError(f'tasks must be some of {TASKS}, got {tuple(tasks)}')
        self._class_table = class_table
        self.min_region_size = min_region_size
        self.min_num_points = min_num_points
        self.tasks = tuple(tasks)
        self.per_class = per_class

    @property
    def class_table(self) -> ClassTable:
        """The table given, or else the dataset's."""
        table = self._class_table
        if table is None:
            table = (self.dataset_meta or {}).get('class_table')
        if table is None:
            raise ValueError('no class_table given, and the dataset metainfo has none')
        return get_class_table(table) if isinstance(table, str) else table

    def process(self, data_batch: Any, data_samples: Sequence[Mapping]) -> None:
        """Summarise each scene of a batch (the batch itself is not read)."""
        for sample in data_samples:
            try:
                summary = self._summarise(sample['pred_pts_seg'], sample['eval_ann_info'])
            except KeyError as error:
                raise ValueError(f'{_scene_name(sample)}: missing field {error}') from error
            except ValueError as error:
                raise ValueError(f'{_scene_name(sample)}: {error}') from error
            self.results.append(summary)

    def compute_metrics(self, results: list[SceneSummary]) -> dict[str, float]:
        """Merge the scenes' summaries, log the tables and return the numbers."""
        if not results:
            raise ValueError('no scene was evaluated')

        evaluate = {
            'semantic': self._semantic,
            'instance': self._instance,
            'panoptic': self._panoptic,
        }

        metrics: dict[str, float] = {}
        for task in self.tasks:
            overall, columns = evaluate[task](results)
            if task == 'instance' and np.isnan(overall['AP']):
                reason = why_no_ap(_instances(results), self.min_region_size)
                print_log(reason, logger='current', level=logging.WARNING)
            print_log(_format_table(task, overall, columns), logger='current')
            metrics |= {f'{task}/{name}': value for name, value in overall.items()}
            if task == 'panoptic':
                metrics |= self._panoptic_mmdet3d(results)
            if self.per_class:
                metrics |= {
                    f'{task}/{name}/{class_name}': value
                    for name, column in columns.items()
                    for class_name, value in column.items()
                }
        return metrics

    def _summarise(self, pred: Mapping, gt: Mapping) -> SceneSummary:
        table = self.class_table
        num_classes = table.num_classes
        gt_semantic = _labels(gt['pts_semantic_mask'], 'true semantic', 0, num_classes)
        num_points = len(gt_semantic)
        maps = pred['pts_semantic_mask']
        maps = maps if isinstance(maps, list | tuple) else [maps]

        confusion = instance = panoptic = None
        if 'semantic' in self.tasks:
            semantic = _labels(maps[0], 'predicted semantic', 0, num_classes - 1, num_points)
            matrix = confusion_matrix(semantic, gt_semantic, num_classes).ravel()
            cells = np.flatnonzero(matrix)
            confusion = cells, matrix[cells]
        if self.tasks == ('semantic',):
            return SceneSummary(confusion, instance, panoptic)

        gt_instance = _labels(gt['pts_instance_mask'], 'true instance', -1, None, num_points)
        gt_instance, gt_classes = dense_instances(gt_instance, gt_semantic)
        masks = pred['pts_instance_mask']

        if 'instance' in self.tasks:
            last = len(table.instance_classes) - 1
            instance = match_instances(
                _array(masks[0]),
                _labels(pred['instance_labels'], 'instance label', 0, last),
                _array(pred['instance_scores']),
                gt_instance,
                _instance_label_of_class(table)[gt_classes],
                self.min_region_size,
            )

        if 'panoptic' in self.tasks:
            if len(maps) < 2 or len(masks) < 2:
                raise ValueError('panoptic scores need the panoptic semantic and the panoptic ids')
            semantic = _labels(maps[1], 'panoptic semantic', 0, num_classes - 1, num_points)
            ids = _labels(masks[1], 'panoptic id', -1, None, num_points)
            is_stuff = np.isin(semantic, table.stuff)
            panoptic = match_segments(
                semantic,
                np.where(is_stuff, 0, ids),
                *panoptic_ground_truth(gt_semantic, gt_instance, gt_classes, table),
                num_classes,
                self.min_num_points,
            )
        return SceneSummary(confusion, instance, panoptic)

    def _semantic(self, results: list[SceneSummary]) -> tuple[dict, dict]:
        names = self.class_table.classes
        confusion = np.zeros(len(names) ** 2, dtype=np.int64)
        for cells, counts in (x.confusion for x in results if x.confusion is not None):
            confusion[cells] += counts
        scores = semantic_scores(confusion.reshape(len(names), len(names)))
        overall = {'mIoU': scores.miou, 'acc': scores.acc, 'mAcc': scores.macc}
        return overall, {'IoU': _by_name(names, scores.iou)}

    def _instance(self, results: list[SceneSummary]) -> tuple[dict, dict]:
        table = self.class_table
        names = [table.classes[k] for k in table.instance_classes]
        scores = instance_scores(_instances(results), len(names), self.min_region_size)
        overall = {'AP': scores.mean_ap, 'AP50': scores.mean_ap50, 'AP25': scores.mean_ap25}
        columns = {'AP': scores.ap, 'AP50': scores.ap50, 'AP25': scores.ap25}
        return overall, {key: _by_name(names, column) for key, column in columns.items()}

    def _panoptic(self, results: list[SceneSummary]) -> tuple[dict, dict]:
        table = self.class_table
        scores = panoptic_scores(_segments(results), table.things, table.stuff)
        columns = {'PQ': scores.pq, 'SQ': scores.sq, 'RQ': scores.rq}
        return scores.means, {k: _by_name(table.classes, v) for k, v in columns.items()}

    def _panoptic_mmdet3d(self, results: list[SceneSummary]) -> dict[str, float]:
        table = self.class_table
        scores = panoptic_scores(_segments(results), table.things, table.stuff)
        return {f'panoptic_mmdet3d/{k}': value for k, value in scores.means_mmdet3d.items()}


def _instances(results: Sequence[SceneSummary]) -> list[InstanceMatches]:
    return [x.instance for x in results if x.instance is not None]


def _segments(results: Sequence[SceneSummary]) -> list[PanopticCounts]:
    return [x.panoptic for x in results if x.panoptic is not None]


def why_no_ap(scenes: Sequence[InstanceMatches], min_region_size: int) -> str:
    """One line that says why average precision is NaN: no true instance is to be found.

    Args:
        scenes: what was matched, none of it with a true instance that counts.
        min_region_size: least number of points of an instance that counts.
    """
    sizes = np.concatenate([scene.gt_sizes[scene.gt_labels >= 0] for scene in scenes])
    if not sizes.size:
        return f'AP is NaN: no true instance of an instance class in {len(scenes)} scenes'
    return (
        f'AP is NaN: all {len(sizes)} true instances have fewer than min_region_size = '
        f'{min_region_size} points (the largest {sizes.max()})'
    )


def dense_instances(instance: np.ndarray, semantic: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Renumber instances without gaps and give each the class of most of its points.

    Args:
        instance: (N,) integer ids, −1 = none.
        semantic: (N,) integer classes ≥ 0.

    Returns:
        (N,) int64 ids 0…G−1 or −1, and (G,) int64 classes; of equally frequent classes the
        smallest. Ids keep their order.
    """
    member = instance >= 0
    unique, index = dense_index(instance[member])
    dense = np.full(len(instance), -1, dtype=np.int64)
    dense[member] = index

    # votes[g, c]: how many points of instance g have class c
    width = int(semantic.max(initial=0)) + 1
    votes = np.bincount(index * width + semantic[member], minlength=len(unique) * width)
    return dense, votes.reshape(len(unique), width).argmax(axis=1)


def panoptic_ground_truth(
    semantic: np.ndarray, instance: np.ndarray, classes: np.ndarray, table: ClassTable
) -> tuple[np.ndarray, np.ndarray]:
    """True classes and segment ids per point: things by instance, stuff by class.

    Args:
        semantic: (N,) classes 0…C.
        instance: (N,) dense ids 0…G−1, −1 = none.
        classes: (G,) class of each instance.
        table: which classes are things.

    Returns:
        (N,) classes, C where void, and (N,) segment ids. All points of a thing instance have
        its class; thing points without one are void.
    """
    void = table.ignore_index
    is_thing = np.isin(np.append(classes, void), table.things)[instance]

    loose = ~is_thing & np.isin(semantic, table.things)
    semantic = np.where(is_thing, np.append(classes, void)[instance], semantic)
    return np.where(loose, void, semantic), np.where(is_thing, instance, 0)


def _instance_label_of_class(table: ClassTable) -> np.ndarray:
    """(C + 1,) instance label of a semantic class; −1 for classes without instances."""
    labels = np.full(table.num_classes + 1, -1, dtype=np.int64)
    labels[list(table.instance_classes)] = np.arange(len(table.instance_classes))
    return labels


def _array(value: np.ndarray | torch.Tensor) -> np.ndarray:
    if isinstance(value, torch.Tensor):
        # NumPy has no bfloat16.
        value = value.detach().float() if value.is_floating_point() else value.detach()
        return value.cpu().numpy()
    return np.asarray(value)


def _labels(
    value: np.ndarray | torch.Tensor,
    name: str,
    first: int,
    last: int | None,
    length: int | None = None,
) -> np.ndarray:
    """One integer label per point, checked."""
    labels = _array(value)
    if labels.ndim != 1 or labels.dtype.kind not in 'iu':
        raise ValueError(
            f'{name}s must be one integer each, got shape {labels.shape} of {labels.dtype}'
        )
    if length is not None and len(labels) != length:
        raise ValueError(f'{len(labels)} {name}s for {length} points with a true label')

    if not labels.size:
        return labels.astype(np.int64)
    low, high = labels.min(), labels.max()
    if low < first or (last is not None and high > last):
        wanted = f'{first}…{last}' if last is not None else f'at least {first}'
        raise ValueError(f'{name}s must be {wanted}, got {low}…{high}')
    return labels.astype(np.int64)


def _scene_name(sample: Mapping) -> str:
    names = (sample.get(key) for key in ('scene_id', 'lidar_path'))
    return next((str(name) for name in names if name), 'scene without a name')


def _by_name(names: Sequence[str], values: np.ndarray) -> dict[str, float]:
    return dict(zip(names, values.tolist()))


def _format_table(
    task: str, overall: dict[str, float], columns: dict[str, dict[str, float]]
) -> str:
    """Rows of classes under the named columns, then the overall numbers on one line."""
    show: Callable[[float], str] = '{:.4f}'.format
    class_names = next(iter(columns.values()))
    rows = [[x, *(show(column[x]) for column in columns.values())] for x in class_names]
    table = AsciiTable([['class', *columns], *rows], title=task)
    return '\n'.join(
        ['', table.table, '  '.join(f'{name} {show(value)}' for name, value in overall.items())]
    )
