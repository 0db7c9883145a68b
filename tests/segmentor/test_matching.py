"""Costs against loops over pairs, matchers against enumeration and their definition."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from oneformer3d.segmentor.matching import (
    HungarianMatcher,
    MaskBCECost,
    MaskDiceCost,
    QueryClassificationCost,
    SparseMatcher,
)

COSTS = [QueryClassificationCost(0.5), MaskBCECost(1.0), MaskDiceCost(1.0)]


def random_case(num_queries=6, num_superpoints=10, num_instances=4, num_classes=3):
    return (
        torch.randn(num_queries, num_classes + 1),
        torch.randn(num_queries, num_superpoints),
        torch.randint(num_classes, (num_instances,)),
        torch.rand(num_instances, num_superpoints) > 0.5,
    )


def pair_costs(cls_logits, mask_logits, labels, gt_masks):
    """Slow twin of the sum of the three costs."""
    cost = torch.zeros(len(cls_logits), len(labels))
    for q, i in itertools.product(range(len(cls_logits)), range(len(labels))):
        gt, soft = gt_masks[i].float(), mask_logits[q].sigmoid()
        bce = F.binary_cross_entropy_with_logits(mask_logits[q], gt)
        dice = 1 - (2 * (soft * gt).sum() + 1) / (soft.sum() + gt.sum() + 1)
        cost[q, i] = -0.5 * cls_logits[q].softmax(0)[labels[i]] + bce + dice
    return cost


def test_costs_equal_a_loop_over_pairs():
    case = random_case()
    torch.testing.assert_close(HungarianMatcher(COSTS).cost_matrix(*case), pair_costs(*case))


def test_costs_stay_finite_for_confident_masks():
    cls_logits, mask_logits, labels, gt_masks = random_case()
    cost = HungarianMatcher(COSTS).cost_matrix(cls_logits, mask_logits * 1e4, labels, gt_masks)
    assert torch.isfinite(cost).all()


@pytest.mark.parametrize(('num_queries', 'num_instances'), [(5, 3), (3, 5), (4, 4)])
def test_hungarian_finds_the_cheapest_assignment(num_queries, num_instances):
    case = random_case(num_queries, num_instances=num_instances)
    cost = pair_costs(*case)
    query_ids, gt_ids = HungarianMatcher(COSTS)(*case)
    if num_queries >= num_instances:
        totals = [
            cost[list(p), range(num_instances)].sum()
            for p in itertools.permutations(range(num_queries), num_instances)
        ]
    else:
        totals = [
            cost[range(num_queries), list(p)].sum()
            for p in itertools.permutations(range(num_instances), num_queries)
        ]
    torch.testing.assert_close(cost[query_ids, gt_ids].sum(), min(totals))
    assert len(query_ids) == len(query_ids.unique()) == min(num_queries, num_instances)


def sparse_by_definition(cost, query_masks, topk):
    """Per instance the candidates strictly below the (topk + 1)-th smallest cost."""
    cost = torch.where(query_masks.T, cost, torch.tensor(1e8))
    pairs = set()
    for i in range(cost.shape[1]):
        threshold = cost[:, i].sort().values[topk]
        pairs |= {(int(q), i) for q in (cost[:, i] < threshold).nonzero()[:, 0]}
    return pairs


@pytest.mark.parametrize('topk', [1, 2, 3])
def test_sparse_matcher_follows_its_definition(topk):
    case = random_case(num_queries=12, num_superpoints=12, num_instances=5)
    query_ids, gt_ids = SparseMatcher(COSTS, topk)(*case)
    pairs = set(zip(query_ids.tolist(), gt_ids.tolist()))
    assert pairs == sparse_by_definition(pair_costs(*case), case[3], topk)
    assert len(pairs) > 0


def test_sparse_matcher_uses_the_masks_of_the_queries():
    cls_logits, mask_logits, labels, gt_masks = random_case(num_queries=3)
    query_masks = torch.tensor([[0, 1, 0], [0, 0, 0], [1, 0, 1], [0, 0, 0]]).bool()
    query_ids, gt_ids = SparseMatcher(COSTS)(cls_logits, mask_logits, labels, gt_masks, query_masks)
    pairs = dict(zip(gt_ids.tolist(), query_ids.tolist()))
    assert pairs.keys() == {0, 2}
    assert pairs[0] == 1
    assert pairs[2] in (0, 2)


def test_sparse_matcher_with_fewer_candidates_than_topk():
    cls_logits, mask_logits, labels, _ = random_case(num_queries=2, num_superpoints=2)
    masks = torch.tensor([[1, 0], [1, 1], [0, 0], [0, 1]]).bool()
    query_ids, gt_ids = SparseMatcher(COSTS, topk=5)(cls_logits, mask_logits, labels, masks)
    assert set(zip(query_ids.tolist(), gt_ids.tolist())) == {(0, 0), (0, 1), (1, 1), (1, 3)}


def test_sparse_matcher_matches_one_of_two_equal_queries():
    cls_logits, mask_logits = torch.zeros(2, 4), torch.zeros(2, 2)
    masks = torch.ones(1, 2, dtype=torch.bool)
    query_ids, gt_ids = SparseMatcher(COSTS)(cls_logits, mask_logits, torch.tensor([1]), masks)
    assert len(query_ids) == 1
    assert gt_ids.tolist() == [0]


@pytest.mark.parametrize('matcher', [SparseMatcher(COSTS), HungarianMatcher(COSTS)])
def test_no_instances_give_no_pairs(matcher):
    cls_logits, mask_logits, labels, gt_masks = random_case(num_instances=0)
    query_masks = torch.zeros(0, len(cls_logits), dtype=torch.bool)
    query_ids, gt_ids = matcher(cls_logits, mask_logits, labels, gt_masks, query_masks)
    assert query_ids.shape == gt_ids.shape == (0,)
    assert query_ids.dtype == gt_ids.dtype == torch.long


def test_matching_is_done_in_float32_under_autocast():
    case = random_case()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        cost = HungarianMatcher(COSTS).cost_matrix(case[0], case[1].bfloat16(), *case[2:])
    assert cost.dtype == torch.float32
    expected = pair_costs(case[0], case[1].bfloat16().float(), *case[2:])
    torch.testing.assert_close(cost, expected)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match='at least one cost'):
        HungarianMatcher([])
    with pytest.raises(ValueError, match='topk'):
        SparseMatcher(COSTS, topk=0)
    cls_logits, mask_logits, labels, gt_masks = random_case(num_queries=3)
    with pytest.raises(ValueError, match='query masks'):
        SparseMatcher(COSTS)(cls_logits, mask_logits, labels, gt_masks)
    with pytest.raises(ValueError, match='not finite'):
        HungarianMatcher(COSTS)(cls_logits, mask_logits * torch.nan, labels, gt_masks)
