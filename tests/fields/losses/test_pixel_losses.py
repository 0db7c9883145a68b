"""Losses of pixels against closed forms and torch's own."""

import pytest
import torch
import torch.nn.functional as F

from oneformer3d.fields import clip_feature_loss
from oneformer3d.fields.losses.pixel_losses import (
    depth_loss,
    feature_loss,
    language_loss,
    semantic_loss,
)


def test_semantic_loss_of_probabilities_and_logits() -> None:
    logits = torch.randn(6, 4)
    labels = torch.tensor([0, 3, 255, 1, 2, 255])
    expected = F.cross_entropy(logits, labels, ignore_index=255)
    torch.testing.assert_close(semantic_loss(logits, labels, 'logits'), expected)
    torch.testing.assert_close(semantic_loss(logits.softmax(-1), labels), expected)
    confidence = torch.tensor([1.0, 0, 1, 0, 0, 1])
    torch.testing.assert_close(
        semantic_loss(logits.softmax(-1), labels, confidence=confidence),
        -logits.log_softmax(-1)[0, 0],
    )
    nothing = semantic_loss(logits.requires_grad_(), torch.full((6,), 255), 'logits')
    assert nothing == 0
    nothing.backward()
    assert logits.grad.abs().max() == 0
    with pytest.raises(ValueError, match='labels must be 0 … 3 or 255'):
        semantic_loss(logits, torch.tensor([0, 1, 2, 3, 4, 0]))


def test_depth_and_feature_terms() -> None:
    assert depth_loss(torch.tensor([1.0, 2]), torch.tensor([0.0, 0])) == 0
    features, target = torch.rand(4, 7), torch.rand(4, 7)
    torch.testing.assert_close(feature_loss(features, target), F.mse_loss(features, target))
    mask = torch.tensor([True, False, True, False])
    torch.testing.assert_close(
        feature_loss(features, target, mask), F.mse_loss(features[mask], target[mask])
    )
    # quadratic below 1.25, linear above
    language = language_loss(torch.tensor([[1.0, 2.0]]), torch.zeros(1, 2))
    assert float(language) == pytest.approx(0.5 + 1.25 * (2 - 0.625))


class MeanColourClip:
    """A model whose embedding of a patch is its mean colour."""

    calls = 0

    def preprocess(self, patch):
        assert patch.shape[-1] == 3
        return patch.movedim(-1, 0)

    def encode_image(self, images):
        self.calls += 1
        return images.mean((-2, -1))


def test_clip_feature_loss_compares_patches_of_three_sizes() -> None:
    image = torch.rand(16, 12, 3)
    clip = MeanColourClip()
    # features equal to the colours: their mean over a patch is its embedding
    assert float(clip_feature_loss(image, image, clip, patch_size=4)) == pytest.approx(0, abs=1e-6)
    assert clip.calls == 2  # 12 patches of 4, 2 of 8, none of 16 pixels
    opposite = clip_feature_loss(-image, image, clip, patch_size=4)
    assert float(opposite) == pytest.approx(2)
    other = torch.rand(16, 12, 3)
    loss = clip_feature_loss(other, image, clip, patch_size=8)
    tiles = [(slice(8 * i, 8 * i + 8), slice(0, 8)) for i in range(2)]
    expected = [
        1 - F.cosine_similarity(other[t].mean((0, 1)), image[t].mean((0, 1)), dim=0) for t in tiles
    ]
    torch.testing.assert_close(loss, torch.stack(expected).mean())
    with pytest.raises(ValueError, match='no patch of 32'):
        clip_feature_loss(image, image, clip)
