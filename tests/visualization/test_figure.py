"""Colours, labels and panels."""

import numpy as np
import pytest
import torch
from mmdet3d.structures import PointData

from oneformer3d.data.class_tables import get_class_table
from oneformer3d.files.images import write_png
from oneformer3d.visualization.figure import comparison_figure, score_figure, segmentation_figure
from oneformer3d.visualization.labels import (
    PointLabels,
    annotated_labels,
    instance_ids,
    predicted_labels,
)
from oneformer3d.visualization.palette import UNLABELED, class_colors, instance_colors


def test_class_colors_follow_the_palette() -> None:
    palette = np.array([[1, 2, 3], [4, 5, 6]], np.uint8)
    colors = class_colors(np.array([1, 0, 2, -1]), palette)
    np.testing.assert_array_equal(colors, [[4, 5, 6], [1, 2, 3], UNLABELED, UNLABELED])
    assert colors.dtype == np.uint8


def test_instance_colors_are_distinct_and_belong_to_the_id() -> None:
    colors = instance_colors(np.arange(100))
    assert len(np.unique(colors, axis=0)) == 100
    np.testing.assert_array_equal(instance_colors(np.array([7, -1, 7]))[[0, 2]], colors[[7, 7]])
    assert tuple(instance_colors(np.array([-1]))[0]) == UNLABELED
    # Neighbouring ids are far apart, so that neighbours in a picture are told apart.
    steps = np.abs(np.diff(colors.astype(int), axis=0)).sum(1)
    assert steps.min() > 80


def test_the_better_instance_wins_a_shared_point() -> None:
    masks = np.array([[1, 1, 0, 0], [0, 1, 1, 0]], bool)
    np.testing.assert_array_equal(instance_ids(masks, np.array([0.9, 0.4])), [0, 0, 1, -1])
    np.testing.assert_array_equal(instance_ids(masks, np.array([0.4, 0.9])), [0, 1, 1, -1])
    np.testing.assert_array_equal(instance_ids(np.zeros((0, 2), bool), np.zeros(0)), [-1, -1])


@pytest.mark.parametrize('convert', [torch.as_tensor, np.asarray])
def test_predicted_labels_from_tensors_and_arrays(convert) -> None:
    masks = np.array([[1, 1, 0], [0, 0, 1]], bool)
    data = PointData(
        pts_semantic_mask=[convert(np.array([3, 3, 4])), convert(np.array([3, 3, 3]))],
        pts_instance_mask=[convert(masks), convert(np.array([2, 2, 0]))],
        instance_labels=convert(np.array([1, 2])),
        instance_scores=convert(np.array([0.9, 0.1], np.float32)),
    )
    labels = predicted_labels(data, score_thr=0.3)
    np.testing.assert_array_equal(labels.semantic, [3, 3, 4])
    np.testing.assert_array_equal(labels.instance, [0, 0, -1])
    np.testing.assert_array_equal(labels.panoptic, [2, 2, 0])


def test_annotated_labels() -> None:
    assert annotated_labels(None) is None
    assert annotated_labels({'sp_pts_mask': np.zeros(3)}) is None
    labels = annotated_labels({'pts_semantic_mask': np.arange(3)})
    np.testing.assert_array_equal(labels.semantic, [0, 1, 2])
    assert labels.instance is None


def test_figure_has_a_panel_for_each_label_and_a_legend_in_the_classes_colors() -> None:
    table = get_class_table('scannet')
    points = np.random.default_rng(0).random((400, 3))
    rgb = np.full((400, 3), 100, np.uint8)
    semantic = np.where(points[:, 0] > 0.5, 4, 20)
    labels = PointLabels(semantic, np.where(semantic == 4, 0, -1))
    args = points, rgb, labels, table.classes, table.palette
    one = segmentation_figure(*args, size=(60, 80))
    two = segmentation_figure(*args, ground_truth=labels, size=(60, 80))
    assert one.shape[1] == two.shape[1] == 3 * 80
    assert two.shape[0] - one.shape[0] > 60
    present = {tuple(color) for color in one.reshape(-1, 3)}
    assert tuple(table.palette[4]) in present
    assert tuple(table.palette[5]) not in present


def test_figure_refuses_labels_of_other_points() -> None:
    points = np.zeros((4, 3))
    rgb = np.zeros((4, 3), np.uint8)
    with pytest.raises(ValueError, match='colors: expected'):
        segmentation_figure(points, rgb, PointLabels(np.zeros(3, int)), ['a'], rgb[:1])


def test_png_is_written_whole_or_not_at_all(tmp_path) -> None:
    write_png(tmp_path / 'a.png', np.zeros((4, 5, 3), np.uint8))
    assert (tmp_path / 'a.png').read_bytes()[:4] == b'\x89PNG'
    with pytest.raises(ValueError, match=r'b\.png'):
        write_png(tmp_path / 'b.png', np.zeros((4, 5)))
    assert [p.name for p in tmp_path.iterdir()] == ['a.png']


def test_a_comparison_shows_errors_in_red_below_each_prediction() -> None:
    grid = np.stack(np.meshgrid(np.arange(20.0), np.arange(20.0), [0.0]), -1).reshape(-1, 3) / 10
    truth = np.zeros(len(grid), int)
    truth[-40:] = 2  # no class of two: unlabeled, never wrong
    wrong = truth.copy()
    wrong[:100] = 1
    size = (60, 80)
    palette = np.array([[0, 0, 255], [0, 255, 0]], np.uint8)
    predictions = {'good': np.zeros_like(truth), 'bad': wrong}
    image = comparison_figure(grid, predictions, truth, ('a', 'b'), palette, size, 'top')
    assert image.shape[1:] == (3 * size[1], 3)
    assert image.shape[0] > 2 * (size[0] + 30)  # and the legend

    def reds(column: int) -> int:
        below = image[size[0] + 30 : 2 * (size[0] + 30), column * size[1] : (column + 1) * size[1]]
        below = below.astype(int)
        return int(((below[..., 0] > 100) & (below[..., 1:].max(-1) < 90)).sum())

    assert reds(0) == reds(1) == 0
    assert reds(2) > 100
    with pytest.raises(ValueError, match=r'bad: expected \(400,\) labels, got \(3,\)'):
        comparison_figure(grid, {'bad': truth[:3]}, truth, ('a', 'b'), palette, size)
    with pytest.raises(ValueError, match='at least one'):
        comparison_figure(grid, {}, truth, ('a', 'b'), palette, size)


def test_scores_are_three_panels_a_row():
    points = np.random.default_rng(0).random((300, 3))
    rgb = np.full((300, 3), 100, np.uint8)
    scores = {f'text {k}': np.full(300, k / 4) for k in range(5)}
    image = score_figure(points, rgb, scores, size=(60, 80))
    assert image.shape[1] == 240
    assert image.shape[0] == 2 * (image.shape[0] // 2)
    # the same points, so the same pixels are drawn in every panel; brighter where it fits better
    panel = image.shape[0] // 2
    dark, bright = image[:panel, 80:160], image[panel:, 160:]
    assert bright[30:][bright[30:] < 255].mean() > dark[30:][dark[30:] < 255].mean()
    with pytest.raises(ValueError, match='text: expected'):
        score_figure(points, rgb, {'text': np.zeros(299)})
