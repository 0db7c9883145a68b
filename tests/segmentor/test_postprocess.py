"""Post-processing against the reference values, loops, and scenes with nothing in them."""

import numpy as np
import pytest
import torch

from oneformer3d.segmentor.postprocess import (
    Candidates,
    PostprocessSettings,
    find_instances,
    matrix_nms_decay,
    paste_things,
    segment_scene,
    soft_iou,
)
from tests.helpers.reference_values import oneformer3d_reference

STUFF, INSTANCE_CLASSES = (0, 1), (2, 3, 4)


def segment(cls_logits, mask_logits, semantic_logits, superpoints, scores=None, **settings):
    return segment_scene(
        cls_logits,
        mask_logits,
        scores,
        semantic_logits,
        superpoints,
        STUFF,
        INSTANCE_CLASSES,
        PostprocessSettings(**settings),
    )


def test_matches_the_reference_values():
    reference = oneformer3d_reference()
    test_cfg = dict(reference['config']['test_cfg'])
    stuff = test_cfg.pop('stuff_classes')
    for i, expected in enumerate(reference['pred']):
        got = segment_scene(
            reference['cls_preds'][i],
            reference['masks'][i],
            None,
            reference['sem_preds'][i][:, :-1],
            reference['superpoints'][i],
            stuff,
            range(2, 20),
            PostprocessSettings(**test_cfg),
        )

        np.testing.assert_array_equal(got.semantic, expected['pts_semantic_mask'][0])
        np.testing.assert_array_equal(got.panoptic_semantic, expected['pts_semantic_mask'][1])
        np.testing.assert_array_equal(got.panoptic_ids, expected['pts_instance_mask'][1])
        assert instance_list(
            got.instance_labels, got.instance_masks, got.instance_scores
        ) == instance_list(
            expected['instance_labels'],
            expected['pts_instance_mask'][0],
            expected['instance_scores'],
        )


def instance_list(labels, masks, scores):
    """Instances in an order that does not depend on how equal scores were sorted."""
    return sorted(
        (int(x), m.tobytes(), round(float(s), 6)) for x, m, s in zip(labels, masks, scores)
    )


def nms_by_loop(masks, labels, scores, kernel, sigma=2.0):
    """Slow twin of matrix NMS on masks in descending order of scores."""

    def iou(i, j):
        overlap = (masks[i] * masks[j]).sum()
        return float(overlap / (masks[i].sum() + masks[j].sum() - overlap))

    def same_above(j):
        return [i for i in range(j) if labels[i] == labels[j]]

    decayed = []
    for j in range(len(masks)):
        decay = 1.0
        for i in same_above(j):
            covered = max((iou(k, i) for k in same_above(i)), default=0.0)
            if kernel == 'linear':
                decay = min(decay, (1 - iou(i, j)) / (1 - covered))
            else:
                decay = min(decay, float(np.exp(-sigma * (iou(i, j) ** 2 - covered**2))))
        decayed.append(float(scores[j]) * decay)
    return torch.tensor(decayed)


@pytest.mark.parametrize('kernel', ['linear', 'gaussian'])
def test_matrix_nms_equals_a_loop(kernel):
    masks, labels = torch.rand(20, 30) ** 3, torch.randint(3, (20,))
    scores = torch.rand(20).sort(descending=True).values
    decay = matrix_nms_decay(soft_iou(masks), labels, kernel)
    torch.testing.assert_close(
        scores * decay, nms_by_loop(masks, labels, scores, kernel), rtol=1e-4, atol=1e-6
    )


def test_matrix_nms_of_equal_hard_masks_is_finite():
    masks = torch.ones(3, 4)
    decay = matrix_nms_decay(soft_iou(masks), torch.zeros(3, dtype=torch.long))
    assert decay.tolist() == [1, 0, 0]
    assert matrix_nms_decay(torch.zeros(0, 0), torch.zeros(0, dtype=torch.long)).shape == (0,)


def instances_by_loop(cls_logits, mask_logits, sizes, settings):
    """Slow twin of ``find_instances`` without NMS: (score, label, mask) in descending order."""
    found = []
    probabilities = cls_logits.softmax(1)
    for q in range(len(cls_logits)):
        soft = mask_logits[q].sigmoid()
        inside = mask_logits[q] > settings.obj_normalization_thr
        quality = float(soft[inside].mean()) if inside.any() else 0.0
        for c in range(cls_logits.shape[1] - 1):
            found.append((float(probabilities[q, c]), quality, c, soft > settings.sp_score_thr))
    found = sorted(found, key=lambda x: -x[0])[: settings.topk_insts]
    found = sorted(((p * quality, c, mask) for p, quality, c, mask in found), key=lambda x: -x[0])
    return [x for x in found if int(sizes[x[2]].sum()) > settings.npoint_thr]


def test_instances_equal_a_loop():
    cls_logits, mask_logits = torch.randn(8, 4), torch.randn(8, 10)
    sizes = torch.randint(1, 9, (10,))
    settings = PostprocessSettings(topk_insts=15, npoint_thr=28, nms=False)
    got = find_instances(cls_logits, mask_logits, None, sizes, settings)
    expected = instances_by_loop(cls_logits, mask_logits, sizes, settings)
    assert 0 < len(expected) < 15
    torch.testing.assert_close(got.scores, torch.tensor([x[0] for x in expected]))
    assert got.labels.tolist() == [x[1] for x in expected]
    assert torch.equal(got.masks, torch.stack([x[2] for x in expected]))
    assert torch.equal(got.sizes, (got.masks * sizes).sum(1))


def test_scores_of_masks_multiply():
    cls_logits, mask_logits = torch.randn(3, 2), torch.full((3, 4), 60.0)
    quality = torch.tensor([[0.5], [1.0], [0.1]])
    settings = PostprocessSettings(npoint_thr=0, nms=False)
    got = find_instances(cls_logits, mask_logits, quality, torch.ones(4).long(), settings)
    expected = (cls_logits.softmax(1)[:, 0] * quality[:, 0]).sort(descending=True).values
    torch.testing.assert_close(got.scores, expected)


def panoptic_by_loop(things, semantic_logits, sizes, npoint_thr):
    """Slow twin of ``paste_things``."""
    semantic = torch.tensor([STUFF[int(row[list(STUFF)].argmax())] for row in semantic_logits])
    ids, pasted = semantic.clone(), torch.full_like(semantic, -1)
    order = sorted(range(len(things.labels)), key=lambda k: float(things.scores[k]))
    for rank, k in enumerate(order):
        pasted[things.masks[k]] = rank
    for rank, k in enumerate(order):
        region = pasted == rank
        if int(sizes[region].sum()) > npoint_thr:
            semantic[region] = INSTANCE_CLASSES[int(things.labels[k])]
            ids[region] = 2 + rank
    return semantic, ids


def test_panoptic_equals_a_loop():
    sizes = torch.randint(1, 9, (40,))
    masks = torch.rand(12, 40) > 0.8
    things = Candidates(masks, torch.randint(3, (12,)), torch.rand(12), (masks * sizes).sum(1))
    logits = torch.randn(40, 5)
    for npoint_thr in (0, 8, 20):
        got = paste_things(things, logits, sizes, STUFF, INSTANCE_CLASSES, npoint_thr)
        expected = panoptic_by_loop(things, logits, sizes, npoint_thr)
        assert torch.equal(got[0], expected[0])
        assert torch.equal(got[1], expected[1])


def test_thing_ids_never_collide_with_stuff():
    # Stuff in the middle and at the end of the classes, and instances of stuff classes.
    stuff, classes = (0, 1, 4), (0, 1, 2, 3, 4)
    masks = torch.eye(6, dtype=torch.bool)
    labels = torch.tensor([2, 3, 2, 3, 4, 0])
    things = Candidates(masks, labels, torch.linspace(0.9, 0.5, 6), torch.full((6,), 10))
    logits = torch.randn(6, 5)
    semantic, ids = paste_things(things, logits, torch.full((6,), 10), stuff, classes, 0)
    assert semantic[:4].tolist() == [2, 3, 2, 3]
    assert set(semantic[4:].tolist()) <= set(stuff)
    assert ids[:4].tolist() == [8, 7, 6, 5]
    assert torch.equal(ids[4:], semantic[4:])


def test_results_of_a_plain_scene():
    superpoints = torch.tensor([0, 0, 0, 1, 1, 1, 2])
    cls_logits = torch.tensor([[9.0, 0, 0, 0], [0, 0, 0, 9.0], [0, 0, 0, 9.0]])
    mask_logits = torch.tensor([[9.0, -9, -9], [-9, 9, -9], [-9, -9, 9]])
    semantic_logits = torch.tensor([[1.0, 0, 5, 0, 0], [0, 5, 0, 0, 0], [0, 1, 0, 0, 5]])
    got = segment(cls_logits, mask_logits, semantic_logits, superpoints, npoint_thr=1)
    assert got.semantic.tolist() == [2, 2, 2, 1, 1, 1, 4]
    assert got.panoptic_semantic.tolist() == [2, 2, 2, 1, 1, 1, 1]
    assert got.panoptic_ids.tolist() == [2, 2, 2, 1, 1, 1, 1]
    assert got.instance_masks[0].tolist() == [True] * 3 + [False] * 4
    assert got.instance_labels[0] == 0
    assert got.instance_scores[0] > 0.99
    assert (np.diff(got.instance_scores) <= 0).all()
    assert got.instance_masks.dtype == bool
    assert got.instance_masks.flags.c_contiguous
    assert got.instance_scores.dtype == np.float32
    assert got.instance_labels.dtype == got.semantic.dtype == got.panoptic_ids.dtype == np.int64


def assert_no_instances(got, num_points):
    assert got.instance_masks.shape == (0, num_points)
    assert got.instance_labels.shape == got.instance_scores.shape == (0,)
    assert set(got.panoptic_ids.tolist()) <= set(STUFF)
    np.testing.assert_array_equal(got.panoptic_ids, got.panoptic_semantic)
    assert got.semantic.shape == (num_points,)


def test_no_instance_predicted():
    superpoints = torch.arange(50) % 5
    empty_masks = segment(
        torch.randn(4, 4), torch.full((4, 5), -9.0), torch.randn(5, 5), superpoints
    )
    assert_no_instances(empty_masks, 50)
    low_scores = segment(
        torch.randn(4, 4),
        torch.full((4, 5), 9.0),
        torch.randn(5, 5),
        superpoints,
        inst_score_thr=2.0,
        pan_score_thr=2.0,
        npoint_thr=0,
    )
    assert_no_instances(low_scores, 50)


def test_one_superpoint_and_one_point():
    for num_points in (1, 30):
        superpoints = torch.zeros(num_points, dtype=torch.long)
        arguments = torch.randn(1, 4), torch.full((1, 1), 3.0), torch.randn(1, 5), superpoints
        assert_no_instances(segment(*arguments, npoint_thr=100), num_points)
        found = segment(*arguments, npoint_thr=0)
        assert found.instance_masks.shape == (3, num_points)
        assert found.instance_masks.all()


def test_topk_is_at_most_the_number_of_candidates():
    superpoints = torch.arange(6)
    got = segment(
        torch.randn(2, 4), torch.full((2, 6), 3.0), torch.randn(6, 5), superpoints,
        topk_insts=600, npoint_thr=0,
    )  # fmt: skip
    assert len(got.instance_labels) == 6


def test_settings_are_checked():
    with pytest.raises(ValueError, match='matrix_nms_kernel'):
        PostprocessSettings(matrix_nms_kernel='cubic')
    with pytest.raises(ValueError, match='topk_insts'):
        PostprocessSettings(topk_insts=0)
