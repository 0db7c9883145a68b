"""The mean of the probabilities of mirrored scenes, against one computed by hand."""

import numpy as np
import torch

from oneformer3d.mvpnet.tta import MVPNetTTA
from tests.mvpnet.test_segmentor import batch, build


def test_classes_are_of_the_mean_probability_of_each_point():
    torch.manual_seed(5)
    network = build().eval()
    inputs, samples = batch()
    mirror = torch.tensor([-1.0, 1, 1, 1, 1, 1])
    mirrored = {**inputs, 'points': [points * mirror for points in inputs['points']]}
    merged = MVPNetTTA(network).test_step(
        {'inputs': [inputs, mirrored], 'data_samples': [samples, samples]}
    )

    with torch.no_grad():
        views = [network.logits(view) for view in (inputs, mirrored)]
    for i, predicted in enumerate(merged):
        mean = (views[0][i].softmax(1) + views[1][i].softmax(1)).numpy() / 2
        actual = predicted.pred_pts_seg.pts_semantic_mask[0]
        np.testing.assert_array_equal(actual, mean.argmax(1))
        np.testing.assert_allclose(predicted.pts_confidence, mean.max(1), rtol=1e-5)
        assert len(predicted.pts_view_agreement) == len(actual)
    assert not torch.equal(views[0][0], views[1][0])
