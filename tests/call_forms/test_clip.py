"""The CLIP branch as its document writes the calls; deviations stand in ``docs/call_forms.md``."""

import pytest
import torch

from oneformer3d.clip_utils import (
    build_geo_pe,
    build_uv_index,
    build_uv_index_batch,
    freeze_clip_except_last_blocks,
    sample_img_feat,
)

INTRINS = torch.tensor([[200.0, 0.0, 111.5], [0.0, 200.0, 111.5], [0.0, 0.0, 1.0]])
EXTRINS = torch.eye(4)


def test_uv_index_and_sampling():
    points = torch.tensor([[0.0, 0.0, 2.0], [0.3, 0.1, 1.0], [0.0, 0.0, -1.0]])
    uv_idx, valid = build_uv_index(points, INTRINS, EXTRINS, (224, 224))
    assert valid.tolist() == [True, True, False]
    torch.testing.assert_close(uv_idx[1], torch.tensor([171.5, 131.5]))

    # a map of 56×56 that holds its pixel column is read back
    upsampled = (torch.arange(56.0) * 4 + 1.5).expand(1, 56, 56)
    pts_feat = sample_img_feat(upsampled, uv_idx[valid], (224, 224))
    torch.testing.assert_close(pts_feat[:, 0], uv_idx[valid][:, 0])


def test_what_the_short_forms_lack_is_said_in_one_line():
    points = torch.rand(4, 3)
    for call in (
        lambda: build_uv_index(points, INTRINS, EXTRINS),
        lambda: build_uv_index_batch(points[None], INTRINS[None], EXTRINS[None]),
        lambda: sample_img_feat(torch.rand(8, 56, 56), torch.rand(4, 2)),
    ):
        with pytest.raises(ValueError, match=r'^give image_size=\(H, W\) of the image[^\n]*$'):
            call()


def test_batches_and_views():
    points = torch.rand(2, 5, 3) + torch.tensor([0.0, 0.0, 1.0])
    uv, _ = build_uv_index_batch(points, INTRINS[None], EXTRINS.expand(2, 4, 4), (224, 224))
    assert uv.shape == (2, 5, 2)
    views = EXTRINS.expand(2, 4, 4, 4)
    uv, _ = build_uv_index_batch(points, INTRINS, views, (224, 224))
    assert uv.shape == (2, 4, 5, 2)


def test_geometric_encoding_has_64_numbers():
    points = torch.rand(5, 3)
    assert build_geo_pe(points).shape == (5, 64)


def test_the_tower_freezes_whole_by_default():
    import open_clip

    model = open_clip.create_model('ViT-B-32', pretrained=None)
    freeze_clip_except_last_blocks(model.visual, 0)
    assert not any(parameter.requires_grad for parameter in model.visual.parameters())
    freeze_clip_except_last_blocks(model.visual, 1)
    assert any(parameter.requires_grad for parameter in model.visual.parameters())
