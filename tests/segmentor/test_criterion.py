"""Losses against the reference values, plain formulas and the cases that used to break."""

import pytest
import torch
import torch.nn.functional as F

from oneformer3d.registry import MODELS
from oneformer3d.segmentor.criterion import (
    InstanceCriterion,
    S3DISSemanticCriterion,
    ScanNetSemanticCriterion,
    class_of_columns,
    dice_loss,
    score_loss,
)
from oneformer3d.structures import SceneTargets
from tests.helpers.reference_values import oneformer3d_reference
from tests.helpers.small_models import COSTS, small_s3dis_settings, small_settings

NUM_CLASSES, NUM_INSTANCE_CLASSES = 5, 3


def random_outputs(sizes=((6, 6), (9, 9)), num_aux=2, scores=False, dtype=torch.float32):
    """Predictions of a batch; ``sizes`` are (queries, superpoints) of the samples."""

    def layer(is_last):
        return {
            'cls_preds': [leaf(q, NUM_INSTANCE_CLASSES + 1) for q, _ in sizes],
            'sem_preds': [leaf(q, NUM_CLASSES + 1) for q, _ in sizes] if is_last else None,
            'masks': [leaf(q, s) for q, s in sizes],
            'scores': [leaf(q, 1) for q, _ in sizes] if scores else None,
        }

    def leaf(*shape):
        return torch.randn(*shape).to(dtype).requires_grad_()

    return {**layer(True), 'aux_outputs': [layer(False) for _ in range(num_aux)]}


def make_targets(instance_of, labels, semantic_of):
    """Targets from the instance and class of every superpoint."""
    instance_of, semantic_of = torch.tensor(instance_of), torch.tensor(semantic_of)
    instance_masks = instance_of == torch.arange(len(labels))[:, None]
    semantic_masks = semantic_of == torch.arange(NUM_CLASSES + 1)[:, None]
    rows = torch.arange(NUM_CLASSES + 1)
    return SceneTargets(
        torch.cat([torch.tensor(labels, dtype=torch.long), rows]),
        torch.cat([instance_masks, semantic_masks]),
    )


TARGETS = [
    make_targets([0, 0, 1, 1, -1, -1], [2, 0], [4, 4, 2, 2, 0, 5]),
    make_targets([0, 0, 0, 1, 1, 2, -1, -1, -1], [1, 1, 2], [3, 3, 3, 3, 3, 4, 0, 1, 5]),
]


def build(settings=None, **instance_settings):
    criterion = (settings or small_settings())['criterion']
    criterion['inst_criterion'].update(instance_settings)
    return MODELS.build(criterion)


def leaves(outputs):
    for layer in [outputs, *outputs['aux_outputs']]:
        for key in ('cls_preds', 'sem_preds', 'masks', 'scores'):
            yield from layer[key] or []


def assert_finite(losses, outputs):
    """Losses are finite, and so is every gradient; returns the total."""
    total = sum(losses.values())
    total.backward()
    assert torch.isfinite(total)
    for leaf in leaves(outputs):
        assert leaf.grad is None or torch.isfinite(leaf.grad).all()
    return total


def test_matches_the_reference_values():
    reference = oneformer3d_reference()
    outputs = {key: reference[key] for key in ('cls_preds', 'sem_preds', 'masks')}
    outputs['scores'] = None
    outputs['aux_outputs'] = [{**layer, 'scores': None} for layer in reference['aux']]
    targets = [SceneTargets(gt['labels'], gt['sp_masks']) for gt in reference['gt']]
    losses = MODELS.build(reference['config']['criterion'])(outputs, targets)
    assert losses.keys() == reference['loss'].keys()
    for key, expected in reference['loss'].items():
        assert float(losses[key]) == pytest.approx(expected, abs=1e-4)


def test_instance_loss_follows_the_formula():
    outputs = random_outputs(num_aux=0)
    criterion = build().inst_criterion
    instances = [
        SceneTargets(t.labels_3d[: -NUM_CLASSES - 1], t.sp_masks[: -NUM_CLASSES - 1])
        for t in TARGETS
    ]

    expected = 0.0
    for i, target in enumerate(instances):
        pairs = criterion.matcher(
            outputs['cls_preds'][i], outputs['masks'][i], target.labels_3d, target.sp_masks
        )

        classes = torch.full((len(outputs['cls_preds'][i]),), NUM_INSTANCE_CLASSES)
        bce = dice = 0.0
        for q, k in zip(*map(torch.Tensor.tolist, pairs)):
            classes[q] = target.labels_3d[k]
            logits, mask = outputs['masks'][i][q], target.sp_masks[k].float()
            soft = logits.sigmoid()
            bce += F.binary_cross_entropy(soft, mask)
            dice += 1 - (2 * (soft * mask).sum() + 1) / (soft.sum() + mask.sum() + 1)

        log_p = outputs['cls_preds'][i].log_softmax(1)[range(len(classes)), classes]
        weight = torch.tensor([1.0, 1.0, 1.0, 0.1])[classes]
        cls = -(weight * log_p).sum() / weight.sum()
        expected += (0.5 * cls + bce / len(pairs[0]) + 4 * dice / len(pairs[0])) / 2

    torch.testing.assert_close(criterion(outputs, instances)['inst_loss'], expected)


def test_loss_does_not_depend_on_the_batch_size():
    outputs = random_outputs(((6, 6),))
    losses = []
    for copies in (1, 2, 4):
        batch = {
            **{k: v * copies if v else v for k, v in outputs.items() if k != 'aux_outputs'},
            'aux_outputs': [
                {k: v * copies if v else v for k, v in layer.items()}
                for layer in outputs['aux_outputs']
            ],
        }
        losses.append([build()(batch, TARGETS[:1] * copies), batch])
    values = [float(sum(loss.values())) for loss, _ in losses]
    assert values[0] == pytest.approx(values[1], rel=1e-5)
    assert values[0] == pytest.approx(values[2], rel=1e-5)
    published = build(fix_dice_loss_weight=True)
    assert float(published(losses[2][1], TARGETS[:1] * 4)['inst_loss']) == pytest.approx(
        float(losses[2][0]['inst_loss']), rel=1e-5
    )
    assert float(published(losses[0][1], TARGETS[:1])['inst_loss']) > values[0] + 0.1


def test_targets_are_not_written_to():
    before = [(t.labels_3d.clone(), t.sp_masks.clone()) for t in TARGETS]
    outputs = random_outputs()
    build()(outputs, TARGETS)
    for target, (labels, masks) in zip(TARGETS, before):
        assert torch.equal(target.labels_3d, labels)
        assert torch.equal(target.sp_masks, masks)


@pytest.mark.parametrize('matcher', ['SparseMatcher', 'HungarianMatcher'])
def test_no_ground_truth_instances(matcher):
    empty = make_targets([-1] * 6, [], [0, 0, 1, 1, 5, 5])
    criterion = build(matcher={'type': matcher, 'costs': COSTS})
    outputs = random_outputs(((6, 6),))
    assert assert_finite(criterion(outputs, [empty]), outputs) > 0
    mixed = random_outputs(((6, 6), (9, 9)))
    assert_finite(criterion(mixed, [empty, TARGETS[1]]), mixed)


def test_instances_but_no_match():
    # The only instance owns no query: the queries are other superpoints.
    target = make_targets([0, -1, -1, -1], [1], [3, 0, 1, 5]).with_queries(torch.tensor([1, 3]))
    outputs = random_outputs(((2, 4),))
    losses = build()(outputs, [target])
    assert_finite(losses, outputs)
    assert all(mask.grad is not None and not mask.grad.any() for mask in outputs['masks'])


def test_fewer_candidates_than_topk_and_one_superpoint():
    outputs = random_outputs(((1, 1),))
    target = make_targets([0], [2], [4])
    criterion = build(matcher={'type': 'SparseMatcher', 'costs': COSTS, 'topk': 3})
    assert_finite(criterion(outputs, [target]), outputs)


def test_nothing_is_labeled():
    outputs = random_outputs(((3, 3),))
    losses = build()(outputs, [make_targets([-1] * 3, [], [5] * 3)])
    assert float(losses['seg_loss']) == 0
    assert_finite(losses, outputs)


def test_semantic_loss_ignores_the_unlabeled_logit_and_unlabeled_queries():
    logits = torch.randn(4, NUM_CLASSES + 1)
    target = make_targets([-1] * 4, [], [3, 5, 0, 3])
    criterion = ScanNetSemanticCriterion(ignore_index=NUM_CLASSES, loss_weight=0.2)
    loss = criterion({'sem_preds': [logits]}, [target])['seg_loss']
    expected = F.cross_entropy(logits[[0, 2, 3], :NUM_CLASSES], torch.tensor([3, 0, 3]))
    torch.testing.assert_close(loss, 0.2 * expected)
    changed = logits.clone()
    changed[:, -1] += 50
    changed[1] += 50
    torch.testing.assert_close(criterion({'sem_preds': [changed]}, [target])['seg_loss'], loss)


def test_class_of_columns():
    masks = torch.tensor([[1, 0, 0], [0, 0, 1]]).bool()
    assert class_of_columns(masks).tolist() == [0, 2, 1]


def test_s3dis_semantic_loss_reads_every_layer():
    outputs = random_outputs(((NUM_CLASSES, 6),), num_aux=1)
    target = make_targets([-1] * 6, [], [0, 1, 2, 3, 4, 5])
    loss = S3DISSemanticCriterion(loss_weight=5.0)(outputs, [target])['seg_loss']
    truth = torch.eye(NUM_CLASSES, 6)
    expected = sum(
        F.binary_cross_entropy(layer['masks'][0].sigmoid(), truth)
        for layer in [outputs, *outputs['aux_outputs']]
    )
    torch.testing.assert_close(loss, 5 * expected)


def test_s3dis_semantic_queries_take_no_part_in_the_instance_loss():
    outputs = random_outputs(((8, 6),), scores=True)
    settings = small_s3dis_settings()
    settings['criterion']['inst_criterion'].update(num_classes=NUM_INSTANCE_CLASSES)
    criterion = build(settings)
    assert_finite(criterion(outputs, TARGETS[:1]), outputs)
    for layer in [outputs, *outputs['aux_outputs']]:
        assert not layer['cls_preds'][0].grad[-NUM_CLASSES:].any()
        assert layer['cls_preds'][0].grad[:-NUM_CLASSES].any()
        assert layer['masks'][0].grad[-NUM_CLASSES:].any()


def test_matches_of_the_last_layer_serve_all_without_iter_matcher():
    outputs = random_outputs(((6, 6),), num_aux=1)
    criterion = build(iter_matcher=False)
    calls = []
    matcher = criterion.inst_criterion.matcher
    criterion.inst_criterion.matcher = lambda *a: calls.append(a) or matcher(*a)
    criterion(outputs, TARGETS[:1])
    assert len(calls) == 1


def test_a_query_of_two_instances_has_the_class_of_the_last():
    criterion = InstanceCriterion(
        {'type': 'SparseMatcher', 'costs': COSTS}, [1, 0, 0, 0], NUM_INSTANCE_CLASSES, 0.1
    )
    masks = torch.ones(2, 1, dtype=torch.bool)
    logits = torch.randn(1, NUM_INSTANCE_CLASSES + 1)
    output = {'cls_preds': [logits], 'masks': [torch.randn(1, 1)], 'scores': None}
    target = SceneTargets(torch.tensor([0, 2]), masks)
    loss = criterion(output, [target])['inst_loss']
    torch.testing.assert_close(loss, F.cross_entropy(logits, torch.tensor([2])))


def test_dice_and_score_closed_forms():
    masks = torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    exact = torch.tensor([[50.0, 50.0, -50.0, -50.0]])
    assert float(dice_loss(exact, masks)) == pytest.approx(0, abs=1e-6)
    assert float(dice_loss(-exact, masks)) == pytest.approx(1 - 1 / 5)
    # IoU 2/3 counts, IoU 1/3 does not.
    good, bad = torch.tensor([[9.0, 9.0, 9.0, -9.0]]), torch.tensor([[9.0, -9.0, 9.0, -9.0]])
    scores = torch.tensor([[1.0], [7.0]])
    both = score_loss(scores, torch.cat([good, bad]), masks.repeat(2, 1))
    assert float(both) == pytest.approx((1 - 2 / 3) ** 2)
    assert float(score_loss(scores[1:], bad, masks)) == 0


def test_losses_are_float32_under_bfloat16_autocast():
    outputs = random_outputs(dtype=torch.bfloat16, scores=True)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        losses = build()(outputs, TARGETS)
    assert all(loss.dtype == torch.float32 for loss in losses.values())
    assert_finite(losses, outputs)


def test_settings_are_checked():
    with pytest.raises(ValueError, match='expected 4 numbers'):
        build(loss_weight=[1.0, 1.0])
    with pytest.raises(TypeError, match='unknown_key'):
        build(unknown_key=1)
