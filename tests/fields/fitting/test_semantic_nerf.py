"""The paper's own training of a given model: its numbers, its checkpoint, and what it refuses."""

import pytest
import torch

from oneformer3d.fields import SemanticNeRFLoss, render_semantic_rays, sample_rays
from oneformer3d.fields.fitting.semantic_nerf import CHECKPOINT_NAME, train_semantic_nerf
from oneformer3d.fields.networks.mlp_field import SemanticNeRF
from oneformer3d.fields.scene.batches import SEED_STRIDE
from tests.helpers.small_scenes import K, box_views


@pytest.fixture(scope='module')
def items():
    views = box_views(4)
    rows = zip(views['images'], views['semantics'], views['world_from_cam'], strict=True)
    return [dict(image=i, semantics=s, intrinsics=K, extrinsics=p) for i, s, p in rows]


def new_model() -> SemanticNeRF:
    torch.manual_seed(0)
    return SemanticNeRF(4, 2, 16, num_classes=3)


def test_steps_are_the_documents_loop_written_out(items):
    """Random view, rays, 64 + 32 samples of 0.1 to 10 m, four terms, Adam, rate × 0.99999."""
    model = new_model()
    train_semantic_nerf(model, items, 3, 32, 5e-3, log_every=0)

    twin = new_model().train()
    optimizer = torch.optim.Adam(twin.parameters(), lr=5e-3)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.99999)
    loss_fn = SemanticNeRFLoss()
    for step in range(3):
        generator = torch.Generator().manual_seed(step)
        item = items[torch.randint(0, len(items), (1,), generator=generator).item()]
        origins, directions, rgb, labels = sample_rays(
            item['image'], item['semantics'], item['intrinsics'], item['extrinsics'], 32, generator
        )
        shown = render_semantic_rays(
            twin, origins, directions, near=0.1, far=10.0, num_samples=64, generator=generator
        )
        loss, _ = loss_fn(shown['rgb'], shown['semantics'], shown['depth'], rgb, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
    assert SEED_STRIDE > 3
    for (name, value), other in zip(model.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(value, other, msg=name)
    assert torch.equal(model.unit_from_world, torch.eye(4))  # positions are read as they are


def test_an_interrupted_training_ends_with_the_same_numbers(items, tmp_path):
    whole = new_model()
    train_semantic_nerf(whole, items, 6, 16)

    class Stop(Exception):
        pass

    def stop(step, values):
        if step == 3:
            raise Stop

    train_semantic_nerf(new_model(), items, 2, 16, out=tmp_path)
    with pytest.raises(Stop):  # whatever breaks off: the file of step 2 is whole
        train_semantic_nerf(new_model(), items, 6, 16, out=tmp_path, on_step=stop)
    resumed, seen = new_model(), []
    fitted = train_semantic_nerf(
        resumed, items, 6, 16, out=tmp_path, on_step=lambda step, values: seen.append(step)
    )
    assert seen == [3, 4, 5, 6]
    assert fitted.step == 6
    for value, other in zip(whole.state_dict().values(), resumed.state_dict().values()):
        assert torch.equal(value, other)


def test_another_training_is_not_gone_on_with(items, tmp_path):
    train_semantic_nerf(new_model(), items, 1, 8, out=tmp_path)
    with pytest.raises(ValueError, match='was begun with'):
        train_semantic_nerf(new_model(), items, 2, 16, out=tmp_path)
    with pytest.raises(ValueError, match='another model'):
        train_semantic_nerf(SemanticNeRF(4, 2, 8, num_classes=3), items, 2, 8, out=tmp_path)
    (tmp_path / CHECKPOINT_NAME).write_bytes(b'torn')
    with pytest.raises(ValueError, match=r'semantic_nerf\.pth: not loaded'):
        train_semantic_nerf(new_model(), items, 2, 8, out=tmp_path)


def test_items_are_read_when_they_are_needed(items):
    class Lazy:
        taken = 0

        def __len__(self):
            return len(items)

        def __getitem__(self, index):
            self.taken += 1
            return items[index]

    lazy = Lazy()
    fitted = train_semantic_nerf(new_model(), lazy, 2, 8)
    assert lazy.taken <= 3 * len(items)
    assert fitted.observations.observed(torch.tensor([[0.0, 0.6, 0.0]])).any()

    with pytest.raises(ValueError, match=r'item 0 .* has no'):
        train_semantic_nerf(new_model(), [{'image': items[0]['image']}], 1)
    with pytest.raises(ValueError, match='at least one item'):
        train_semantic_nerf(new_model(), [], 1)
