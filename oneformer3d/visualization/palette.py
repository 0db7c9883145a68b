"""Colours of labels: one for each class, one for each instance.

Enters: integer labels (N,), -1 or an id outside the table for "none". Leaves: (N, 3) uint8 RGB.
"""

import colorsys

import numpy as np

UNLABELED = (205, 205, 205)

# Irrational steps through hue, saturation and value: neighbours in id are far in colour.
_HUE_STEP, _SATURATION_STEP, _VALUE_STEP = 0.6180339887, 0.7548776662, 0.5698402910


def class_colors(labels: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """Colour of each point's class.

    Args:
        labels: (N,) integer class ids; what is outside 0…C-1 counts as unlabeled.
        palette: (C, 3) uint8.

    Returns:
        (N, 3) uint8.
    """
    labels = np.asarray(labels)
    num_classes = len(palette)
    table = np.concatenate([np.asarray(palette, np.uint8), np.array([UNLABELED], np.uint8)])
    known = (labels >= 0) & (labels < num_classes)
    return table[np.where(known, labels, num_classes)]


def instance_colors(ids: np.ndarray) -> np.ndarray:
    """Colour of each point's instance: the same id has the same colour in every picture.

    Args:
        ids: (N,) integer instance ids; negative = no instance.

    Returns:
        (N, 3) uint8.
    """
    unique, inverse = np.unique(np.asarray(ids), return_inverse=True)
    table = np.array([_instance_color(int(i)) for i in unique], dtype=np.uint8).reshape(-1, 3)
    return table[inverse.reshape(-1)]


def _instance_color(instance_id: int) -> tuple[int, int, int]:
    if instance_id < 0:
        return UNLABELED
    hue = (0.03 + instance_id * _HUE_STEP) % 1.0
    saturation = 0.50 + 0.40 * ((instance_id * _SATURATION_STEP) % 1.0)
    value = 0.68 + 0.27 * ((instance_id * _VALUE_STEP) % 1.0)
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)
