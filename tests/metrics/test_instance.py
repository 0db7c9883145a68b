"""Average precision against mmdet3d's scannet_eval / instance_seg_eval and hand-drawn cases."""

import pickle
import warnings

import numpy as np
import pytest
import torch
from mmdet3d.evaluation import instance_seg_eval
from mmdet3d.evaluation.functional import scannet_eval

from oneformer3d.metrics.instance import (
    IOU_THRESHOLDS,
    InstanceScores,
    instance_scores,
    match_instances,
)
from tests.helpers.random_scenes import Scene, random_scene

NUM_CLASSES = 4
# The reference encodes void as ids below 1000, so its class ids start at 1.
CLASS_IDS = (3, 5, 1, 17)
NAMES = ('cabinet', 'chair', 'wall lamp', 'sofa')


def ours(scenes: list[Scene], min_region_size: int) -> InstanceScores:
    matches = [
        match_instances(s.masks, s.labels, s.scores, s.gt_instance, s.gt_labels, min_region_size)
        for s in scenes
    ]
    return instance_scores(matches, NUM_CLASSES, min_region_size)


def encoded_ground_truth(scene: Scene) -> np.ndarray:
    label = np.append(scene.gt_labels, -1)[scene.gt_instance]
    return np.where(label < 0, 0, 1000 * np.append(CLASS_IDS, 0)[label] + scene.gt_instance)


def reference(scenes: list[Scene], min_region_size: int) -> dict:
    predictions = [
        {
            f'{index}_{k}': {'mask': mask, 'label_id': CLASS_IDS[label], 'conf': score}
            for k, (mask, label, score) in enumerate(zip(s.masks, s.labels, s.scores))
        }
        for index, s in enumerate(scenes)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return scannet_eval(
            predictions,
            [encoded_ground_truth(s) for s in scenes],
            {'min_region_sizes': np.array([min_region_size])},
            CLASS_IDS,
            NAMES,
            dict(zip(CLASS_IDS, NAMES)),
        )


def public_reference(scenes: list[Scene], min_region_size: int) -> dict:
    """The same through the id-map interface, for disjoint predictions."""
    semantic, instance, predicted = [], [], []
    for s in scenes:
        label = np.append(s.gt_labels, -1)[s.gt_instance]
        semantic.append(torch.from_numpy(np.where(label < 0, NUM_CLASSES, label)))
        instance.append(torch.from_numpy(np.where(label < 0, 0, s.gt_instance + 1)))
        ids = np.full(s.masks.shape[1], -1)
        for k, mask in enumerate(s.masks):
            ids[mask] = k
        predicted.append(torch.from_numpy(ids))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return instance_seg_eval(
            semantic,
            instance,
            predicted,
            [torch.from_numpy(s.labels) for s in scenes],
            [torch.from_numpy(s.scores) for s in scenes],
            CLASS_IDS,
            NAMES,
            {'min_region_sizes': np.array([min_region_size])},
            logger='silent',
        )


def assert_equal_to_reference(scores: InstanceScores, expected: dict) -> None:
    got = [scores.mean_ap, scores.mean_ap50, scores.mean_ap25]
    want = [expected[key] for key in ('all_ap', 'all_ap_50%', 'all_ap_25%')]
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-15)
    for values, key in ((scores.ap, 'ap'), (scores.ap50, 'ap50%'), (scores.ap25, 'ap25%')):
        want = [expected['classes'][name][key] for name in NAMES]
        np.testing.assert_allclose(values, want, rtol=1e-12, atol=1e-15, err_msg=key)


@pytest.mark.parametrize('min_region_size', [1, 30, 100])
@pytest.mark.parametrize('seed', range(40))
def test_overlapping_predictions_equal_scannet_eval(seed: int, min_region_size: int) -> None:
    rng = np.random.default_rng(seed)
    scenes = [random_scene(rng, NUM_CLASSES) for _ in range(rng.integers(1, 5))]
    assert_equal_to_reference(ours(scenes, min_region_size), reference(scenes, min_region_size))


@pytest.mark.parametrize('seed', range(10))
def test_disjoint_predictions_equal_instance_seg_eval(seed: int) -> None:
    rng = np.random.default_rng(100 + seed)
    scenes = [random_scene(rng, NUM_CLASSES, disjoint=True) for _ in range(4)]
    assert_equal_to_reference(ours(scenes, 30), public_reference(scenes, 30))


def test_random_scenes_reach_every_rule() -> None:
    """The comparison above is only worth something when the corner cases occur in it."""
    small_gt = void = shared_pred = shared_gt = False
    for seed in range(40):
        scene = random_scene(np.random.default_rng(seed), NUM_CLASSES)
        match = match_instances(
            scene.masks, scene.labels, scene.scores, scene.gt_instance, scene.gt_labels, 30
        )
        pred, gt, shared = match.pairs
        iou = shared / (match.gt_sizes[gt] + match.pred_sizes[pred] - shared)
        over = iou > 0.25
        small_gt |= bool((match.gt_sizes[gt[over]] < 30).any())
        void |= bool((match.pred_ignored > match.pred_sizes / 2).any())
        shared_pred |= len(np.unique(pred[over])) < over.sum()
        shared_gt |= len(np.unique(gt[over])) < over.sum()
    assert small_gt
    assert void
    assert shared_pred
    assert shared_gt


def test_thresholds_are_nine_and_a_quarter() -> None:
    np.testing.assert_allclose(IOU_THRESHOLDS[:-1], np.linspace(0.5, 0.9, 9))
    assert IOU_THRESHOLDS[-1] == 0.25


def hand_scene(
    predictions: list[tuple[range, int, float]], labels: tuple[int, ...] = (0, 1)
) -> Scene:
    """400 points: instance 0 on 0…199, instance 1 on 200…299, void after."""
    gt_instance = np.repeat([0, 1, -1], [200, 100, 100])
    masks = np.zeros((len(predictions), 400), dtype=bool)
    for mask, (points, _, _) in zip(masks, predictions):
        mask[list(points)] = True
    return Scene(
        gt_instance,
        np.array(labels),
        masks,
        np.array([label for _, label, _ in predictions], dtype=np.int64),
        np.array([score for _, _, score in predictions], dtype=np.float32),
    )


def test_perfect_predictions_score_one() -> None:
    got = ours([hand_scene([(range(200), 0, 0.3), (range(200, 300), 1, 0.9)])], 100)
    np.testing.assert_array_equal(got.ap, [1, 1, np.nan, np.nan])
    assert got.mean_ap == got.mean_ap50 == got.mean_ap25 == 1


def test_iou_must_exceed_the_threshold() -> None:
    """IoU exactly 0.5 is no match at 0.5."""
    assert ours([hand_scene([(range(100), 0, 1.0)])], 100).ap50[0] == 0
    assert ours([hand_scene([(range(101), 0, 1.0)])], 100).ap50[0] == 1


def test_duplicate_is_a_false_positive_whichever_comes_first() -> None:
    good, copy = (range(200), 0, 0.4), (range(190), 0, 0.8)
    scores = [ours([hand_scene(order)], 100).ap50[0] for order in ([good, copy], [copy, good])]
    # Recall 1 at the higher score, the copy below it: the curve's rule gives full area.
    assert scores == [1.0, 1.0]
    with_miss = hand_scene([good, copy], labels=(0, 0))
    assert_equal_to_reference(ours([with_miss], 100), reference([with_miss], 100))
    assert ours([with_miss], 100).ap50[0] < 0.6


def test_prediction_on_void_is_ignored() -> None:
    right = (range(200), 0, 0.5)
    with_void = ours([hand_scene([right, (range(300, 400), 0, 0.9)])], 100)
    with_error = ours([hand_scene([right, (range(200, 300), 0, 0.9)])], 100)
    assert with_void.ap50[0] == 1
    assert with_error.ap50[0] < 1


@pytest.mark.parametrize(
    'scene',
    [
        hand_scene([]),
        hand_scene([(range(200), 0, 0.5)], labels=(-1, -1)),
        hand_scene([], labels=(-1, -1)),
        hand_scene([(range(99), 0, 0.5)]),
        hand_scene([(range(300, 400), 0, 0.5)]),
    ],
    ids=['no prediction', 'no truth', 'neither', 'all below the minimum', 'only on void'],
)
def test_empty_cases_equal_scannet_eval(scene: Scene) -> None:
    assert_equal_to_reference(ours([scene], 100), reference([scene], 100))


def test_no_scene_gives_nan() -> None:
    assert np.isnan(instance_scores([], NUM_CLASSES).mean_ap)


def test_summary_is_small() -> None:
    scene = random_scene(np.random.default_rng(3), NUM_CLASSES, num_points=100_000)
    match = match_instances(
        scene.masks, scene.labels, scene.scores, scene.gt_instance, scene.gt_labels
    )
    assert len(pickle.dumps(match)) < 20_000


def test_bad_input_is_named() -> None:
    s = hand_scene([(range(200), 0, 0.5)])
    with pytest.raises(ValueError, match='expected bool'):
        match_instances(s.masks.astype(int), s.labels, s.scores, s.gt_instance, s.gt_labels)
    with pytest.raises(ValueError, match='400 points'):
        match_instances(s.masks, s.labels, s.scores, s.gt_instance[:-1], s.gt_labels)
    with pytest.raises(ValueError, match='labels: expected'):
        match_instances(s.masks, s.labels[:0], s.scores, s.gt_instance, s.gt_labels)
    with pytest.raises(ValueError, match='finite'):
        match_instances(s.masks, s.labels, s.scores * np.nan, s.gt_instance, s.gt_labels)
    with pytest.raises(ValueError, match='got -1…1'):
        match_instances(s.masks, s.labels, s.scores, s.gt_instance, s.gt_labels[:1])
    with pytest.raises(ValueError, match='min_region_size'):
        match_instances(s.masks, s.labels, s.scores, s.gt_instance, s.gt_labels, 0)
