"""A network that was trained from random grid starts does not depend on the lowest point.

Two small models learn the same rooms of boxes with the same seed; only one of them with random
starts. What the other loses shows that the rooms can tell.
"""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from oneformer3d.metrics.instance import instance_scores, match_instances
from oneformer3d.metrics.semantic import confusion_matrix, semantic_scores
from oneformer3d.registry import MODELS
from tests.conftest import REPOSITORY
from tests.helpers.box_rooms import (
    FLOOR,
    LOW_BOX,
    NOISE,
    VOXEL,
    box_room,
    box_settings,
    with_strays,
)

NUM_STEPS = 100
STRAY_DEPTHS = (0.02, 0.05, 0.10, 0.40)  # metres below the lowest point
TWO_POINTS = 0.02  # of mIoU, AP50 and IoU


@dataclass(frozen=True)
class Scores:
    miou: float
    ap50: float
    floor_iou: float

    def loss_from(self, clean: 'Scores') -> float:
        """The largest change of any of the three."""
        return max(abs(getattr(self, x) - getattr(clean, x)) for x in vars(self))


def train(random_grid_start: bool):
    rooms = [box_room(seed) for seed in range(24)]
    torch.manual_seed(0)
    model = MODELS.build(box_settings(random_grid_start)).train()
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=NUM_STEPS)
    order = np.random.default_rng(0)
    for _ in range(NUM_STEPS):
        points, samples = zip(*(rooms[k] for k in order.choice(len(rooms), 4, replace=False)))
        loss, _ = model.parse_losses(model.loss({'points': list(points)}, list(samples)))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return model.eval()


@pytest.fixture(scope='module')
def random_start():
    return train(random_grid_start=True)


@pytest.fixture(scope='module')
def fixed_start():
    return train(random_grid_start=False)


@pytest.fixture(scope='module')
def rooms():
    return [box_room(seed) for seed in range(1000, 1016)]


def evaluate(model, rooms) -> Scores:
    confusion, matches = np.zeros((4, 4), np.int64), []
    for points, sample in rooms:
        predicted = model.predict({'points': [points]}, [sample])[0].pred_pts_seg
        truth = sample.gt_pts_seg
        semantic, instance = truth.pts_semantic_mask.numpy(), truth.pts_instance_mask.numpy()

        confusion += confusion_matrix(np.asarray(predicted.pts_semantic_mask[0]), semantic, 4)
        first = [np.flatnonzero(instance == k)[0] for k in range(instance.max() + 1)]
        matches.append(
            match_instances(
                np.asarray(predicted.pts_instance_mask[0]),
                np.asarray(predicted.instance_labels),
                np.asarray(predicted.instance_scores),
                instance,
                semantic[first] - LOW_BOX,
                min_region_size=10,
            )
        )
    scores = semantic_scores(confusion)
    ap50 = instance_scores(matches, num_classes=2, min_region_size=10).mean_ap50
    return Scores(scores.miou, ap50, float(scores.iou[FLOOR]))


def below(rooms, depth: float):
    lowest = min(float(points[:, 2].min()) for points, _ in rooms)
    return [with_strays(*room, torch.tensor([[1.5, 1.5, lowest - depth]])) for room in rooms]


def among_outliers(rooms):
    generator = torch.Generator().manual_seed(0)
    return [with_strays(*room, torch.rand(30, 3, generator=generator) * 6 - 1.5) for room in rooms]


@pytest.mark.parametrize('depth', STRAY_DEPTHS)
def test_a_stray_point_below_the_floor_changes_nothing(random_start, rooms, depth):
    clean = evaluate(random_start, rooms)
    assert clean.miou > 0.9
    assert clean.ap50 > 0.7
    assert evaluate(random_start, below(rooms, depth)).loss_from(clean) < TWO_POINTS


def test_outliers_anywhere_change_nothing(random_start, rooms):
    clean = evaluate(random_start, rooms)
    assert evaluate(random_start, among_outliers(rooms)).loss_from(clean) < TWO_POINTS


def test_without_random_starts_one_stray_point_is_too_much(fixed_start, rooms):
    clean = evaluate(fixed_start, rooms)
    assert clean.miou > 0.9
    lost = [evaluate(fixed_start, below(rooms, depth)).loss_from(clean) for depth in STRAY_DEPTHS]
    assert max(lost) > 0.1


@pytest.mark.parametrize('cells', range(1, 16, 3))
def test_a_cloud_that_lies_elsewhere_in_the_grid_is_segmented_the_same(random_start, rooms, cells):
    """A point beside the room moves its grid along x and y by so many cells, and along z."""
    corner = min(float(points[:, :3].min()) for points, _ in rooms)
    stray = torch.full((1, 3), corner - cells * VOXEL)
    clean = evaluate(random_start, rooms)
    moved = evaluate(random_start, [with_strays(*room, stray) for room in rooms])
    assert moved.loss_from(clean) < TWO_POINTS


def test_starts_are_drawn_in_training_alone_and_from_torch(rooms):
    encoder = MODELS.build(box_settings(True)['encoder'])
    inputs = {'points': [points for points, _ in rooms[:3]]}

    torch.manual_seed(3)
    first, second = encoder.train().voxelize(inputs), encoder.voxelize(inputs)
    torch.manual_seed(3)
    assert torch.equal(encoder.voxelize(inputs).coords, first.coords)
    assert not torch.equal(first.coords, second.coords)

    fixed = MODELS.build(box_settings(False)['encoder']).voxelize(inputs)
    state = torch.get_rng_state()
    assert torch.equal(encoder.eval().voxelize(inputs).coords, fixed.coords)
    assert torch.equal(torch.get_rng_state(), state)


def test_starts_cover_a_whole_period_with_fractions():
    encoder = MODELS.build(box_settings(True)['encoder']).train()
    assert encoder.grid_period == 8  # four levels
    points = torch.zeros(1, 6)
    firsts = torch.cat([encoder.voxelize({'points': [points]}).coords[:, 1:] for _ in range(400)])
    assert sorted(set(firsts.flatten().tolist())) == list(range(8))

    # two points less than a voxel apart fall into one voxel or into two
    pair = torch.zeros(2, 6)
    pair[1, 2] = VOXEL / 2
    counts = {len(encoder.voxelize({'points': [pair]}).coords) for _ in range(40)}
    assert counts == {1, 2}
    assert NOISE < VOXEL / 2


@pytest.mark.parametrize(
    'name',
    sorted(
        path.stem
        for path in (REPOSITORY / 'configs').glob('*.py')
        if not path.stem.startswith('mvpnet')  # samples points, has no voxels
    ),
)
def test_every_config_trains_with_random_starts(name):
    from oneformer3d.engine.configs import load_config

    encoder = load_config(REPOSITORY / 'configs' / f'{name}.py').model.encoder
    assert encoder.get('encoder_3d', encoder).random_grid_start


@pytest.mark.parametrize('name', ['scannet', 'scannet200', 's3dis'])
def test_the_published_settings_start_where_they_did(name):
    from oneformer3d.engine.configs import load_config

    config = load_config(REPOSITORY / 'configs' / 'published' / f'{name}.py')
    assert 'random_grid_start' not in config.model
