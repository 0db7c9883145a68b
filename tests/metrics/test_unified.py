"""The mmengine metric: end to end against mmdet3d's functions, contract, ranks, bad input."""

import pickle
import warnings
from copy import deepcopy

import numpy as np
import pytest
import torch
from mmdet3d.evaluation import instance_seg_eval, panoptic_seg_eval, seg_eval
from mmdet3d.structures import Det3DDataSample, PointData
from mmengine.evaluator import Evaluator

from oneformer3d.data.class_tables import ClassTable, get_class_table
from oneformer3d.metrics.instance import match_instances
from oneformer3d.metrics.unified import (
    UnifiedSegMetric,
    dense_instances,
    panoptic_ground_truth,
    why_no_ap,
)
from oneformer3d.registry import METRICS

TABLE = ClassTable(
    name='six',
    classes=('wall', 'floor', 'chair', 'table', 'lamp', 'sofa'),
    raw_ids=(1, 2, 3, 4, 5, 6),
    stuff=(0, 1),
    instance_classes=(2, 3, 4, 5),
    palette=np.zeros((6, 3), dtype=np.uint8),
)
C, NUM_STUFF = 6, 2
MIN_REGION = 20


def random_sample(seed: int, num_points: int = 500) -> dict:
    """A scene of runs of points and what an imperfect segmentor makes of it."""
    rng = np.random.default_rng(seed)
    cuts = np.sort(rng.integers(0, num_points, size=14))
    runs = np.searchsorted(cuts, np.arange(num_points))
    semantic = rng.integers(0, C + 1, size=15)[runs]
    is_thing = (semantic >= NUM_STUFF) & (semantic < C)
    instance = np.where(is_thing, runs, -1)
    instance = np.where(runs == 7, -1, instance)  # a thing without an instance

    predicted = np.roll(semantic, 6)
    noise = rng.random(num_points) < 0.1
    predicted = np.where(noise | (predicted == C), rng.integers(0, C, num_points), predicted)
    sources = np.unique(runs[is_thing])
    masks = np.stack([np.roll(runs == k, rng.integers(0, 20)) & ~noise for k in sources])
    masks &= np.cumsum(masks, axis=0) == 1  # the reference takes one instance id per point
    labels = np.array([semantic[runs == k][0] for k in sources]) - NUM_STUFF
    labels = np.where(rng.random(len(labels)) < 0.2, (labels + 1) % 4, labels)
    scores = rng.integers(1, 5, len(sources)).astype(np.float32) / 5
    panoptic_semantic = np.where(predicted < NUM_STUFF, predicted, rng.integers(0, 2, num_points))
    panoptic_id = panoptic_semantic.copy()
    for rank, (mask, label) in enumerate(zip(masks, labels)):
        panoptic_semantic[mask] = label + NUM_STUFF
        panoptic_id[mask] = NUM_STUFF + rank
    return {
        'scene_id': f'scene{seed:04d}',
        'eval_ann_info': {'pts_semantic_mask': semantic, 'pts_instance_mask': instance},
        'pred_pts_seg': {
            'pts_semantic_mask': [predicted, panoptic_semantic],
            'pts_instance_mask': [masks, panoptic_id],
            'instance_labels': labels,
            'instance_scores': scores,
        },
    }


def evaluate(samples: list[dict], **arguments) -> dict[str, float]:
    metric = UnifiedSegMetric(TABLE, min_region_size=MIN_REGION, **arguments)
    metric.process({}, samples)
    return metric.evaluate(len(samples))


def as_tensors(value: object) -> object:
    if isinstance(value, dict):
        return {key: as_tensors(item) for key, item in value.items()}
    if isinstance(value, list):
        return [as_tensors(item) for item in value]
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


def reference(samples: list[dict]) -> dict[str, float]:
    """mmdet3d's three functions on the same scenes, in the encodings that they ask for."""
    names = dict(enumerate((*TABLE.classes, 'unlabeled')))
    gts = [s['eval_ann_info'] for s in samples]
    preds = [s['pred_pts_seg'] for s in samples]
    semantic = [gt['pts_semantic_mask'] for gt in gts]
    instance = [gt['pts_instance_mask'] for gt in gts]
    ids = [
        np.where(pred['pts_instance_mask'][0].any(0), pred['pts_instance_mask'][0].argmax(0), -1)
        for pred in preds
    ]
    thing_class = [np.where(i < 0, C, s) - NUM_STUFF for s, i in zip(semantic, instance)]
    panoptic_gts = [
        {
            'pts_semantic_mask': np.where((i < 0) & (s >= NUM_STUFF), C, s),
            'pts_instance_mask': np.where(i < 0, s, i + 100),
        }
        for s, i in zip(semantic, instance)
    ]
    panoptic_preds = [
        {
            'pts_semantic_mask': p['pts_semantic_mask'][1],
            'pts_instance_mask': p['pts_instance_mask'][1],
        }
        for p in preds
    ]
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        sem = seg_eval(
            deepcopy(semantic),
            deepcopy([p['pts_semantic_mask'][0] for p in preds]),
            {k: names[k] for k in range(C)},
            C,
            logger='silent',
        )
        ins = instance_seg_eval(
            [torch.from_numpy(x) for x in thing_class],
            [torch.from_numpy(np.where(x < 0, 0, x + 1)) for x in instance],
            [torch.from_numpy(x) for x in ids],
            [torch.from_numpy(p['instance_labels']) for p in preds],
            [torch.from_numpy(p['instance_scores']) for p in preds],
            (1, 2, 3, 4),
            TABLE.classes[NUM_STUFF:],
            {'min_region_sizes': np.array([MIN_REGION])},
            logger='silent',
        )
        pan = panoptic_seg_eval(
            panoptic_gts,
            panoptic_preds,
            list(names.values()),
            [names[k] for k in TABLE.things],
            [names[k] for k in TABLE.stuff],
            1,
            2**16,
            names,
            [C],
            logger='silent',
        )
    return {
        'semantic/mIoU': sem['miou'],
        'semantic/acc': sem['acc'],
        'semantic/mAcc': sem['acc_cls'],
        'instance/AP': ins['all_ap'],
        'instance/AP50': ins['all_ap_50%'],
        'instance/AP25': ins['all_ap_25%'],
        'panoptic_mmdet3d/PQ': pan['pq'],
        'panoptic_mmdet3d/SQ': pan['sq_mean'],
        'panoptic_mmdet3d/RQ': pan['rq_mean'],
        'panoptic_mmdet3d/PQ_things': pan['pq_things'],
        'panoptic_mmdet3d/SQ_things': pan['sq_things'],
        'panoptic_mmdet3d/RQ_things': pan['rq_things'],
        'panoptic_mmdet3d/PQ_stuff': pan['pq_stuff'],
        'panoptic_mmdet3d/SQ_stuff': pan['sq_stuff'],
        'panoptic_mmdet3d/RQ_stuff': pan['rq_stuff'],
    }


@pytest.mark.parametrize('seed', range(5))
def test_equals_the_three_reference_functions(seed: int) -> None:
    samples = [random_sample(10 * seed + k) for k in range(5)]
    expected = reference(samples)
    got = evaluate(samples)
    assert {name: got[name] for name in expected} == pytest.approx(expected, rel=1e-12)
    assert 0.1 < expected['instance/AP50'] < 1
    assert 0.1 < expected['panoptic_mmdet3d/PQ'] < 1


def perfect_sample() -> dict:
    semantic = np.repeat([0, 1, 2, 2, 3, 4, 5, C], 50)
    instance = np.repeat([-1, -1, 0, 1, 2, 3, 4, -1], 50)
    masks = instance[None, :] == np.arange(5)[:, None]
    predicted = np.where(semantic == C, 0, semantic)
    return {
        'eval_ann_info': {'pts_semantic_mask': semantic, 'pts_instance_mask': instance},
        'pred_pts_seg': {
            'pts_semantic_mask': [predicted, predicted],
            'pts_instance_mask': [masks, np.where(instance < 0, predicted, instance + 2)],
            'instance_labels': np.array([0, 0, 1, 2, 3]),
            'instance_scores': np.ones(5, dtype=np.float32),
        },
    }


def test_perfect_prediction_scores_one_everywhere() -> None:
    got = evaluate([perfect_sample()], per_class=True)
    assert set(got.values()) == {1.0}
    assert {'semantic/IoU/wall', 'instance/AP50/chair', 'panoptic/PQ/sofa'} <= set(got)
    assert len(got) == 3 + 3 + 2 * 9 + C + 3 * len(TABLE.instance_classes) + 3 * C


def test_tensors_and_arrays_score_the_same_and_stay_unwritten() -> None:
    samples = [random_sample(k) for k in range(3)]
    before = deepcopy(samples)
    expected = evaluate(samples)
    assert evaluate(as_tensors(samples)) == expected
    assert pickle.dumps(samples) == pickle.dumps(before)


def test_no_predicted_instance() -> None:
    sample = random_sample(0)
    pred = sample['pred_pts_seg']
    pred['pts_instance_mask'][0] = np.zeros((0, 500), dtype=bool)
    pred['instance_labels'] = np.zeros(0, dtype=np.int64)
    pred['instance_scores'] = np.zeros(0, dtype=np.float32)
    got = evaluate([sample])
    assert got['instance/AP'] == got['instance/AP50'] == got['instance/AP25'] == 0


def test_ranks_exchange_small_summaries_that_add_up() -> None:
    """What two ranks process, merged in mmengine's order, equals one process."""
    samples = [random_sample(k) for k in range(6)]
    ranks = [UnifiedSegMetric(TABLE, min_region_size=MIN_REGION) for _ in range(2)]
    for rank, metric in enumerate(ranks):
        metric.process({}, samples[rank::2])
    merged = [
        pickle.loads(pickle.dumps(result))
        for pair in zip(*(metric.results for metric in ranks))
        for result in pair
    ]
    assert ranks[0].compute_metrics(merged) == evaluate(samples)
    assert all(len(pickle.dumps(result)) < 10_000 for result in merged)


def test_summary_does_not_grow_with_the_points() -> None:
    sizes = []
    for num_points in (500, 50_000):
        metric = UnifiedSegMetric(TABLE)
        metric.process({}, [random_sample(0, num_points)])
        sizes.append(len(pickle.dumps(metric.results[0])))
    assert sizes[1] < 1.5 * sizes[0]


def test_through_mmengine_with_data_samples_and_the_dataset_table() -> None:
    samples = []
    for item in (as_tensors(random_sample(k)) for k in range(3)):
        sample = Det3DDataSample(metainfo={'scene_id': item['scene_id']})
        sample.eval_ann_info = item['eval_ann_info']
        sample.pred_pts_seg = PointData(**item['pred_pts_seg'])
        samples.append(sample)
    metric = METRICS.build(
        {'type': 'UnifiedSegMetric', 'min_region_size': MIN_REGION, 'prefix': 'val'}
    )
    evaluator = Evaluator(metric)
    evaluator.dataset_meta = {'class_table': TABLE}
    evaluator.process(samples, {})
    expected = evaluate([random_sample(k) for k in range(3)])
    assert evaluator.evaluate(3) == {f'val/{name}': value for name, value in expected.items()}


def test_class_table_by_name() -> None:
    assert UnifiedSegMetric('scannet').class_table is get_class_table('scannet')
    metric = UnifiedSegMetric()
    with pytest.raises(ValueError, match='no class_table'):
        metric.class_table  # noqa: B018
    metric.dataset_meta = {'class_table': 's3dis'}
    assert metric.class_table.name == 's3dis'


def test_instances_of_stuff_classes_count_for_ap_but_not_for_pq() -> None:
    """S3DIS scores instances of every class, walls included."""
    table = get_class_table('s3dis')
    semantic = np.repeat([2, 2, 8], 150)
    instance = np.repeat([0, 1, 2], 150)
    sample = {
        'eval_ann_info': {'pts_semantic_mask': semantic, 'pts_instance_mask': instance},
        'pred_pts_seg': {
            'pts_semantic_mask': [semantic, semantic],
            'pts_instance_mask': [
                instance[None, :] == np.arange(3)[:, None],
                np.where(semantic == 8, 13, semantic),
            ],
            'instance_labels': np.array([2, 2, 8]),
            'instance_scores': np.ones(3),
        },
    }
    metric = UnifiedSegMetric(table, per_class=True)
    metric.process({}, [sample])
    got = metric.evaluate(1)
    assert got['instance/AP/wall'] == got['instance/AP/chair'] == 1
    assert got['panoptic/PQ/wall'] == got['panoptic/PQ/chair'] == 1
    assert got['panoptic/PQ'] == got['panoptic/RQ_things'] == got['panoptic/SQ_stuff'] == 1
    assert got['panoptic_mmdet3d/PQ'] == pytest.approx(2 / table.num_classes)


def test_why_ap_is_nan_is_said() -> None:
    """Four chairs of 40 points where 100 are asked for, then no object at all."""
    gt_instance, masks = np.repeat(np.arange(4), 40), np.zeros((0, 160), dtype=bool)
    none = np.zeros(0, dtype=np.int64)
    small = match_instances(masks, none, np.zeros(0), gt_instance, np.zeros(4, np.int64))
    expected = 'all 4 true instances have fewer than min_region_size = 100 points (the largest 40)'
    assert why_no_ap([small], 100) == f'AP is NaN: {expected}'

    void = match_instances(masks, none, np.zeros(0), gt_instance, np.full(4, -1))
    assert why_no_ap([void, void], 100).endswith(
        'no true instance of an instance class in 2 scenes'
    )


def test_predicted_stuff_is_one_segment_per_class_whatever_its_ids() -> None:
    sample = perfect_sample()
    semantic, ids = (sample['pred_pts_seg'][f'pts_{x}_mask'][1] for x in ('semantic', 'instance'))
    walls = np.flatnonzero(semantic == 0)
    ids[walls] = 1000 + np.arange(len(walls)) % 2
    assert evaluate([sample])['panoptic/PQ'] == 1


def test_semantic_task_alone_needs_only_the_semantic_map() -> None:
    sample = random_sample(0)
    bare = {
        'eval_ann_info': {'pts_semantic_mask': sample['eval_ann_info']['pts_semantic_mask']},
        'pred_pts_seg': {'pts_semantic_mask': sample['pred_pts_seg']['pts_semantic_mask'][0]},
    }
    got = evaluate([bare], tasks=('semantic',))
    expected = evaluate([sample])
    assert got == {name: expected[name] for name in got}
    assert list(got) == ['semantic/mIoU', 'semantic/acc', 'semantic/mAcc']


def test_dense_instances_vote() -> None:
    ids, classes = dense_instances(np.array([9, 9, 9, -1, 4, 4]), np.array([2, 3, 3, 5, 6, 1]))
    assert ids.tolist() == [1, 1, 1, -1, 0, 0]
    assert classes.tolist() == [1, 3]


def test_panoptic_ground_truth_rules() -> None:
    semantic = np.array([0, 0, 2, 1, 3, C, 0])
    instance = np.array([-1, 1, 0, 0, -1, -1, 2])
    classes = np.array([2, 0, C])  # a thing, a stuff and an unlabeled instance
    got_semantic, got_ids = panoptic_ground_truth(semantic, instance, classes, TABLE)
    assert got_semantic.tolist() == [0, 0, 2, 2, C, C, 0]
    assert got_ids[[0, 1, 6]].tolist() == [0, 0, 0]
    assert got_ids[2] == got_ids[3]


BAD = {
    'true semantics must be 0…6, got 0…7': lambda gt, pred: gt['pts_semantic_mask'].__setitem__(
        0, 7
    ),
    'predicted semantics must be 0…5': lambda gt, pred: pred['pts_semantic_mask'][0].__setitem__(
        3, 6
    ),
    'true instances must be at least -1': lambda gt, pred: gt['pts_instance_mask'].__setitem__(
        0, -2
    ),
    'instance labels must be 0…3': lambda gt, pred: pred['instance_labels'].__setitem__(0, 4),
    '499 true instances for 500 points': lambda gt, pred: gt.update(
        pts_instance_mask=gt['pts_instance_mask'][1:]
    ),
    '499 predicted semantics for 500 points': lambda gt, pred: pred.update(
        pts_semantic_mask=[x[1:] for x in pred['pts_semantic_mask']]
    ),
    'masks have 499 points': lambda gt, pred: pred.update(
        pts_instance_mask=[pred['pts_instance_mask'][0][:, 1:], pred['pts_instance_mask'][1]]
    ),
    'one integer each': lambda gt, pred: gt.update(
        pts_semantic_mask=gt['pts_semantic_mask'].astype(np.float32)
    ),
    "missing field 'instance_scores'": lambda gt, pred: pred.pop('instance_scores'),
    'panoptic scores need': lambda gt, pred: pred.update(
        pts_semantic_mask=pred['pts_semantic_mask'][:1]
    ),
}


@pytest.mark.parametrize('message', BAD)
def test_bad_input_names_scene_and_fault(message: str) -> None:
    sample = random_sample(5)
    BAD[message](sample['eval_ann_info'], sample['pred_pts_seg'])
    with pytest.raises(ValueError, match=f'^scene0005: .*{message}'):
        evaluate([sample])


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match='tasks must be'):
        UnifiedSegMetric(TABLE, tasks=('semantics',))
    with pytest.raises(ValueError, match='no scene'):
        UnifiedSegMetric(TABLE).compute_metrics([])
