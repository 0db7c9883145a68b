"""Semantic scores against mmdet3d's seg_eval and against hand-counted cases."""

import warnings

import numpy as np
import pytest
from mmdet3d.evaluation import seg_eval

from oneformer3d.metrics.semantic import confusion_matrix, nan_mean, semantic_scores

C = 6


def reference(trues: list[np.ndarray], predictions: list[np.ndarray]) -> dict[str, float]:
    names = {label: f'class{label}' for label in range(C)}
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', RuntimeWarning)  # its own 0/0 of absent classes
        return seg_eval(
            [x.copy() for x in trues],
            [x.copy() for x in predictions],
            names,
            ignore_index=C,
            logger='silent',
        )


def scores_of(trues: list[np.ndarray], predictions: list[np.ndarray]):
    return semantic_scores(sum(confusion_matrix(p, t, C) for p, t in zip(predictions, trues)))


def assert_equal_to_reference(trues: list[np.ndarray], predictions: list[np.ndarray]) -> None:
    expected, got = reference(trues, predictions), scores_of(trues, predictions)
    np.testing.assert_allclose(got.iou, [expected[f'class{k}'] for k in range(C)], rtol=1e-12)
    np.testing.assert_allclose(
        [got.miou, got.acc, got.macc],
        [expected['miou'], expected['acc'], expected['acc_cls']],
        rtol=1e-12,
    )


@pytest.mark.parametrize('seed', range(20))
def test_random_scenes_equal_seg_eval(seed: int) -> None:
    rng = np.random.default_rng(seed)
    present = rng.permutation(C)[: rng.integers(1, C + 1)]  # the other classes are absent
    trues = [rng.choice([*present, C], size=rng.integers(1, 300)) for _ in range(3)]
    predictions = [rng.integers(0, C, size=len(true)) for true in trues]
    assert_equal_to_reference(trues, predictions)


@pytest.mark.parametrize(
    ('true', 'predicted'),
    [
        ([0, 0, 1, 1], [0, 0, 1, 1]),  # four classes absent on both sides
        ([0, 0, 0, 0], [1, 1, 1, 1]),  # class 1 predicted, never true
        ([C, C, C], [0, 1, 2]),  # nothing evaluated
        ([C, 2, C], [0, 2, 5]),  # wrong only where unlabeled
    ],
)
def test_adversarial_scenes_equal_seg_eval(true: list[int], predicted: list[int]) -> None:
    assert_equal_to_reference([np.array(true)], [np.array(predicted)])


def test_hand_counted_scores() -> None:
    got = scores_of([np.array([0, 0, 0, 1, C])], [np.array([0, 0, 1, 2, 3])])
    np.testing.assert_allclose(got.iou, [2 / 3, 0, 0, np.nan, np.nan, np.nan])
    np.testing.assert_allclose([got.miou, got.acc, got.macc], [2 / 9, 1 / 2, 1 / 3])


def test_matrices_of_scenes_add_up() -> None:
    rng = np.random.default_rng(0)
    true, predicted = rng.integers(0, C + 1, 500), rng.integers(0, C, 500)
    parts = [confusion_matrix(predicted[i::3], true[i::3], C) for i in range(3)]
    np.testing.assert_array_equal(sum(parts), confusion_matrix(predicted, true, C))
    assert sum(parts).sum() == (true < C).sum()


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match='one length'):
        confusion_matrix(np.zeros(3, int), np.zeros(4, int), C)
    with pytest.raises(ValueError, match=r'0…5, got 6…6'):
        confusion_matrix(np.array([6]), np.array([0]), C)


def test_arguments_are_not_written() -> None:
    true, predicted = np.array([0, C, 1]), np.array([0, 1, 1])
    confusion_matrix(predicted, true, C)
    assert true.tolist() == [0, C, 1]
    assert predicted.tolist() == [0, 1, 1]


def test_nan_mean_of_nothing_is_nan_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert np.isnan(nan_mean(np.array([np.nan, np.nan])))
        assert nan_mean(np.array([np.nan, 1.0, 3.0])) == 2.0
