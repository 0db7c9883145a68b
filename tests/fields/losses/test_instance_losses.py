"""Instance losses: slow twins, renamed labels, and what must not overflow."""

import math

import pytest
import torch
import torch.nn.functional as F

from oneformer3d.fields import (
    contrastive_instance_loss,
    linear_assignment_loss,
    slow_fast_contrastive_loss,
)
from oneformer3d.fields.losses.instance_losses import follow_slowly


def slow_contrastive(features, labels, temperature) -> float:
    features, losses = F.normalize(features.double(), dim=-1), []
    for i in range(len(features)):
        others = [j for j in range(len(features)) if j != i and labels[j] >= 0]
        positives = [j for j in others if labels[j] == labels[i]]
        if labels[i] < 0 or not positives:
            continue
        similarity = {j: float(features[i] @ features[j]) / temperature for j in others}
        norm = math.log(sum(math.exp(s) for s in similarity.values()))
        losses.append(-sum(similarity[j] - norm for j in positives) / len(positives))
    return sum(losses) / len(losses)


@pytest.mark.parametrize('temperature', [0.07, 0.5])
def test_contrastive_loss_equals_the_slow_twin(temperature) -> None:
    features = torch.randn(12, 5)
    labels = torch.tensor([0, 0, 1, 1, 1, 2, -1, 3, 3, 0, -1, 4])
    loss = contrastive_instance_loss(features, labels, temperature)
    assert float(loss) == pytest.approx(slow_contrastive(features, labels, temperature), rel=1e-4)


def test_contrastive_loss_knows_no_names_and_does_not_overflow() -> None:
    features, labels = torch.randn(20, 4), torch.randint(4, (20,))
    renamed = torch.tensor([7, 2, 9, 0])[labels]
    torch.testing.assert_close(
        contrastive_instance_loss(features, labels), contrastive_instance_loss(features, renamed)
    )
    tight = torch.eye(4)[labels].requires_grad_()
    loss = contrastive_instance_loss(tight, labels, temperature=1e-4)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(tight.grad).all()
    assert contrastive_instance_loss(torch.eye(4)[labels], labels) < contrastive_instance_loss(
        features, labels
    )


@pytest.mark.parametrize('labels', [[0, 1, 2], [-1, -1, -1], [5, -1, -1], []])
def test_contrastive_loss_without_pairs_is_zero_with_a_graph(labels) -> None:
    features = torch.randn(len(labels), 4, requires_grad=True)
    loss = contrastive_instance_loss(features, torch.tensor(labels, dtype=torch.long))
    assert loss == 0
    loss.backward()
    assert features.grad.abs().sum() == 0


def test_groups_compare_within_themselves() -> None:
    features = torch.randn(10, 4)
    labels = torch.tensor([0, 0, 1, 1, 1, 0, 0, 1, 1, 1])
    groups = torch.tensor([0] * 5 + [1] * 5)
    apart = [contrastive_instance_loss(features[groups == g], labels[:5]) for g in (0, 1)]
    joint = contrastive_instance_loss(features, labels, groups=groups)
    torch.testing.assert_close(joint, sum(apart) / 2)


def test_slow_fast_loss_equals_its_formula() -> None:
    fast, slow = torch.randn(6, 3, requires_grad=True), torch.randn(5, 3, requires_grad=True)
    fast_labels = torch.tensor([0, 1, 2, 0, -1, 1])
    slow_labels = torch.tensor([0, 0, 1, -1, 1])
    contrast, near = [], []
    for f, label in zip(fast, fast_labels):
        positive = slow_labels == label
        if label < 0 or not positive.any():
            continue
        kernel = torch.exp(-(f - slow).norm(dim=-1))
        known = slow_labels >= 0
        contrast.append(-torch.log(kernel[positive].exp().sum() / kernel[known].exp().sum()))
        near.append(torch.exp(-((f - slow[positive].mean(0)) ** 2).sum()))
    expected = torch.stack(contrast).mean() - torch.stack(near).mean()
    loss = slow_fast_contrastive_loss(fast, slow, fast_labels, slow_labels)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert slow.grad is None
    assert torch.isfinite(fast.grad).all()


def test_the_slow_copy_follows() -> None:
    fast, slow = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    expected = 0.9 * slow.weight.detach() + 0.1 * fast.weight.detach()
    follow_slowly(slow, fast)
    torch.testing.assert_close(slow.weight.detach(), expected)


def test_assignment_finds_any_renaming() -> None:
    labels = torch.randint(4, (40,))
    slots = torch.tensor([5, 1, 3, 0])
    probabilities = F.one_hot(slots[labels], 6).float() * 0.9 + 0.1 / 6
    expected = -torch.log(torch.tensor(0.9 + 0.1 / 6 + 1e-8))
    torch.testing.assert_close(linear_assignment_loss(probabilities, labels), expected)
    for _ in range(3):
        renamed = torch.randperm(20)[:4][labels]
        torch.testing.assert_close(linear_assignment_loss(probabilities, renamed), expected)


def test_assignment_is_the_best_of_all_and_one_to_one() -> None:
    probabilities = torch.rand(30, 3).softmax(-1)
    labels = torch.randint(3, (30,))
    means = torch.stack([probabilities[labels == k].mean(0) for k in range(3)])
    permutations = [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
    best = max(permutations, key=lambda p: sum(float(means[k, p[k]]) for k in range(3)))
    chosen = probabilities.gather(-1, torch.tensor(best)[labels][:, None])[:, 0]
    torch.testing.assert_close(
        linear_assignment_loss(probabilities, labels), -torch.log(chosen + 1e-8).mean()
    )


def test_assignment_is_per_view_and_leaves_surplus_labels_alone() -> None:
    probabilities = torch.eye(2).repeat(2, 1)
    labels = torch.tensor([0, 1, 1, 0])  # the second view swaps the names
    views = torch.tensor([0, 0, 1, 1])
    assert float(linear_assignment_loss(probabilities, labels, views=views)) < 1e-6
    assert float(linear_assignment_loss(probabilities, labels)) > 1
    # three labels, two slots: the one that fits worst is not forced into a slot
    surplus = torch.cat((torch.eye(2) * 0.8 + 0.1, torch.full((1, 2), 0.5)))
    loss = linear_assignment_loss(surplus, torch.tensor([0, 1, 2]))
    torch.testing.assert_close(loss, -torch.log(torch.tensor(0.9 + 1e-8)))
    unlabelled = linear_assignment_loss(surplus.requires_grad_(), torch.full((3,), -1))
    assert unlabelled == 0
    unlabelled.backward()
    assert surplus.grad.abs().sum() == 0
