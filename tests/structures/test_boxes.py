"""Upright boxes against boxes of known size and turn, and against a search over all angles."""

import numpy as np
import pytest

from oneformer3d.structures import UprightBox, fit_upright_box


@pytest.mark.parametrize('yaw', [-1.5, -0.7, 0.0, 0.3, 1.4])
def test_a_turned_box_is_found(yaw: float) -> None:
    box = UprightBox((1.0, -2.0, 0.5), (3.0, 1.2, 0.8), yaw)
    inside = np.random.default_rng(0).uniform(-0.5, 0.5, (200, 3)) * box.size
    turn = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
    points = np.concatenate([inside @ turn.T + box.centre, box.corners])
    found = fit_upright_box(points)
    np.testing.assert_allclose(found.centre, box.centre, atol=1e-9)
    np.testing.assert_allclose(found.size, box.size, atol=1e-9)
    assert found.yaw == pytest.approx(yaw, abs=1e-9)
    np.testing.assert_allclose(found.corners, box.corners, atol=1e-9)


def test_no_turn_has_less_area() -> None:
    points = np.random.default_rng(1).normal(size=(60, 3)) * [2, 1, 1]
    found = fit_upright_box(points)
    for angle in np.linspace(0, np.pi / 2, 500):
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        area = np.ptp(points[:, :2] @ turn.T, axis=0).prod()
        assert found.size[0] * found.size[1] <= area + 1e-9
    # and every point is inside
    c, s = np.cos(found.yaw), np.sin(found.yaw)
    local = (points[:, :2] - found.centre[:2]) @ np.array([[c, -s], [s, c]])
    assert (np.abs(local) <= np.array(found.size[:2]) / 2 + 1e-9).all()


@pytest.mark.parametrize(
    ('points', 'size', 'yaw'),
    [
        ([[1, 2, 3]], (0, 0, 0), 0),
        ([[0, 0, 0], [1, 1, 1]], (np.sqrt(2), 0, 1), np.pi / 4),
        ([[0, 0, 0], [0, 1, 0], [0, 3, 0]], (3, 0, 0), -np.pi / 2),
        ([[0, 0, 0], [2, 0, 1], [1, 0, 0]], (2, 0, 1), 0),
    ],
)
def test_few_points_and_lines(points, size, yaw) -> None:
    found = fit_upright_box(np.array(points, float))
    np.testing.assert_allclose(found.size, size, atol=1e-9)
    assert found.yaw == pytest.approx(yaw)


def test_no_points() -> None:
    with pytest.raises(ValueError, match='at least one'):
        fit_upright_box(np.zeros((0, 3)))
