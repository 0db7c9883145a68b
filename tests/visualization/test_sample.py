"""Pictures of samples: dots of points stand at their pixels, panels in rows of four."""

import numpy as np

from oneformer3d.visualization.labels import PointLabels
from oneformer3d.visualization.sample import ViewPixels, label_panel, sample_figure, tiled, titled
from oneformer3d.visualization.sample import view_panel as panel_of


def test_dots_stand_at_the_pixels_of_their_points():
    colors = np.array([[250, 0, 0], [0, 250, 0], [0, 0, 250]], np.uint8)
    image = np.full((40, 50, 3), 7, np.uint8)
    view = ViewPixels('a', np.array([2, 1]), np.array([[10.0, 30.0], [45.0, 5.0]]), (40, 50), image)
    panel = panel_of(view, colors, width=100)
    picture = panel[-80:]  # twice as large as the image, below the title
    assert (picture[61, 21] == colors[2]).all()
    assert (picture[11, 91] == colors[1]).all()
    assert (picture[30:50, 30:80] == 7).all()
    assert not (picture == colors[0]).all(axis=2).any(), 'a point that is not seen'


def test_panels_stand_in_rows_of_four():
    panels = [titled(np.full((20, 30, 3), shade, np.uint8), str(shade)) for shade in range(6)]
    height, width = panels[0].shape[:2]
    sheet = tiled(panels, min_width=200)
    assert sheet.shape == (2 * height, 200, 3)
    assert (sheet[height:, width : 2 * width] == panels[5]).all()
    assert (sheet[height:, 2 * width :] == 255).all()


def test_a_sample_without_labels_or_views_is_drawn():
    points = np.random.default_rng(0).uniform(0, 2, (300, 3))
    rgb = np.full((300, 3), 90, np.uint8)
    alone = sample_figure(points, rgb, PointLabels(), (), np.zeros((0, 3), np.uint8))
    view = ViewPixels('a', np.arange(5), np.full((5, 2), 9.0), (48, 64))
    seen = sample_figure(points, rgb, PointLabels(), (), np.zeros((0, 3), np.uint8), [view])
    assert seen.shape[0] > alone.shape[0]
    assert seen.shape[1] == alone.shape[1]


def test_an_image_stands_above_its_classes():
    image, colors = (np.full((30, 40, 3), shade, np.uint8) for shade in (10, 200))
    panel = label_panel('view 0', image, colors, width=80)
    assert panel[-1, 0, 0] == 200
    assert panel[-61, 0, 0] == 10
