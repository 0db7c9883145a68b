"""How good the features of an encoder are: zero-shot on crops, linear probes on dense maps.

Enters: an encoder and ``Regions`` of training and of other rooms. Leaves: accuracies. Balanced
accuracy is the mean over classes of the share found.

Letters: R regions, K pixels of each, C channels.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from oneformer3d.clip.encoder import ClipEncoder
from oneformer3d.clip.text import cosine_similarity

from .crops import CLASS_SHARE, Regions, class_names, cut_crops, object_windows

_BATCH = 16


def zero_shot_accuracy(encoder: ClipEncoder, regions: Regions) -> tuple[float, float]:
    """Share of object crops whose class is the nearest prompt.

    Args:
        encoder: its input size is the crops' size.
        regions: left out are stuff, which has no box, and objects that other things hide so far
            that a crop of their size is less than ``CLASS_SHARE`` theirs.

    Returns:
        Accuracy and balanced accuracy.
    """
    text = encoder.encode_text(class_names(regions.table))
    things = np.flatnonzero(~np.isin(regions.label, regions.table.stuff))
    windows, share = object_windows(regions, things)
    things, windows = things[share >= CLASS_SHARE], windows[share >= CLASS_SHARE]
    found = []
    for start in range(0, len(things), 4 * _BATCH):
        part = slice(start, start + 4 * _BATCH)
        crops = cut_crops(regions, things[part], windows[part], encoder.input_size[0])
        images = torch.from_numpy(crops).permute(0, 3, 1, 2)
        found.append(cosine_similarity(encoder(images).clip_global, text).argmax(-1).numpy())
    return accuracies(np.concatenate(found), regions.label[things])


def dense_features(encoder: ClipEncoder, regions: Regions) -> np.ndarray:
    """Features of the regions' pixels, read from maps of whole images.

    Args:
        encoder: any.
        regions: R regions.

    Returns:
        (R, K, C) float32.
    """
    rows: list[np.ndarray] = [np.empty(0)] * len(regions)
    for start in range(0, len(regions.images), _BATCH):
        images = torch.from_numpy(regions.images[start : start + _BATCH]).permute(0, 3, 1, 2)
        maps = encoder(images).feat.float()
        here = (regions.image >= start) & (regions.image < start + len(images))
        for row in np.flatnonzero(here):
            pixels = torch.from_numpy(regions.pixels[row]).float()
            rows[row] = sample_pixels(maps[regions.image[row] - start], pixels, images.shape[-2:])
    return np.stack(rows)


def sample_pixels(feature_map: Tensor, pixels: Tensor, image_size: Sequence[int]) -> np.ndarray:
    """Bilinear samples (K, C) of a map (C, h, w) at pixels (K, 2) of an image (H, W)."""
    size = torch.tensor([image_size[1], image_size[0]])
    place = (2 * pixels + 1) / size - 1
    sampled = F.grid_sample(
        feature_map[None], place[None, None], align_corners=False, padding_mode='border'
    )
    return sampled[0, :, 0].t().numpy()


def linear_probe(
    train: np.ndarray, train_label: np.ndarray, test: np.ndarray, test_label: np.ndarray
) -> tuple[float, float]:
    """Logistic regression on standardised features.

    Args:
        train, test: (n, C) features.
        train_label, test_label: (n,) classes.

    Returns:
        Accuracy and balanced accuracy on ``test``.
    """
    mean, std = train.mean(0), train.std(0) + 1e-6
    model = LogisticRegression(C=0.1, max_iter=200, class_weight='balanced')
    model.fit((train - mean) / std, train_label)
    return accuracies(model.predict((test - mean) / std), test_label)


def accuracies(found: np.ndarray, label: np.ndarray) -> tuple[float, float]:
    """Share of equal labels, and its mean over the classes that occur."""
    right = found == label
    balanced = np.mean([right[label == one].mean() for one in np.unique(label)])
    return float(right.mean()), float(balanced)


def object_probe(encoder: ClipEncoder, train: Regions, test: Regions) -> tuple[float, float]:
    """Linear probe on features averaged over each region's pixels."""
    features = [dense_features(encoder, part).mean(1) for part in (train, test)]
    return linear_probe(features[0], train.label, features[1], test.label)


def group_probe(
    train: np.ndarray,
    train_label: np.ndarray,
    test: np.ndarray,
    test_label: np.ndarray,
    groups: Sequence[Sequence[int]],
) -> float:
    """Mean over groups of the balanced accuracy of a probe among a group's classes alone.

    Args:
        train, test: (n, C) features.
        train_label, test_label: (n,) classes.
        groups: classes that only a pattern tells apart.
    """
    found = []
    for group in groups:
        a, b = np.isin(train_label, group), np.isin(test_label, group)
        found.append(linear_probe(train[a], train_label[a], test[b], test_label[b])[1])
    return float(np.mean(found))
