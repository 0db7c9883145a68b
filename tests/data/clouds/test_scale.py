"""Units and origins: what is converted, what is asked for, and what comes back exactly."""

import numpy as np
import pytest

from oneformer3d.data.clouds.colors import colors_to_255, look_like_colors
from oneformer3d.data.clouds.scale import METRES, place


@pytest.fixture
def room():
    """Points (N, 3) of a room of 5 × 4 × 2.6 m, 5 cm apart."""
    x, y = np.meshgrid(np.arange(0, 5, 0.05), np.arange(0, 4, 0.05))
    floor = np.stack([x.ravel(), y.ravel(), np.zeros(x.size)], 1)
    return np.concatenate([floor, floor + np.array([0, 0, 2.6])])


@pytest.mark.parametrize('size', [0.2, 1, 10, 60])
def test_metres_of_any_room_or_building_stay(room, size):
    """Spacing and extent grow together, as with coarser scans of larger places."""
    scaled = (
        room * size
        if size < 2
        else np.concatenate([room + np.array([5 * k, 0, 0]) for k in range(size)])
    )
    placed = place(scaled, 'a')
    np.testing.assert_allclose(placed.xyz, scaled, rtol=1e-6)
    assert placed.warnings == ()


@pytest.mark.parametrize('unit', METRES)
def test_a_stated_unit_is_taken(room, unit):
    placed = place(room / METRES[unit], 'a', unit)
    np.testing.assert_allclose(placed.xyz, room, atol=1e-5)
    assert placed.warnings == ()


def test_millimetres_that_can_be_nothing_else_are_converted_with_a_warning(room):
    placed = place(room * 1000, 'a')
    np.testing.assert_allclose(placed.xyz, room, atol=1e-5)
    assert 'is taken as mm' in placed.warnings[0]


def test_where_two_units_would_do_the_user_is_asked(room):
    dense = np.concatenate(
        [room + np.array([0.01 * i, 0.01 * j, 0]) for i in range(5) for j in range(5)]
    )
    with pytest.raises(ValueError, match=r'a: an extent of .* state --unit'):
        place(dense[::3] * 1000, 'a')


def test_stray_points_do_not_make_a_room_a_landscape(room):
    strays = np.random.default_rng(0).uniform(-4000, 4000, (20, 3))
    assert place(np.concatenate([room, strays]), 'a', origin=None).warnings == ()


def test_large_coordinates_keep_their_millimetres(room):
    world = room + np.array([389012.25, 5819321.5, 34.125])
    placed = place(world, 'a')
    assert np.abs(placed.xyz).max() < 10
    np.testing.assert_allclose(placed.xyz.astype(float) + placed.origin, world, atol=1e-6)
    assert (placed.origin == np.floor(placed.origin)).all()
    assert 'subtracted as the origin' in placed.warnings[0]


def test_a_given_origin_is_taken_and_none_leaves_all_in_place(room):
    placed = place(room, 'a', origin=(1, 2, 3))
    np.testing.assert_allclose(placed.xyz, room - (1, 2, 3), atol=1e-6)
    assert not place(room + 5000, 'a', 'm', origin=None).origin.any()
    with pytest.raises(ValueError, match='coordinates reach'):
        place(room + 1e5, 'a', 'm', origin=None)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [({'unit': 'furlong'}, 'unit: expected'), ({'origin': 'here'}, 'origin: expected'),
     ({'origin': (1, 2)}, 'origin: expected')],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(room, arguments, message):
    with pytest.raises(ValueError, match=message):
        place(room, 'a', **arguments)


@pytest.mark.parametrize(
    ('stored', 'expected'),
    [
        (np.array([[0, 128, 255]], np.uint8), [0, 128, 255]),
        (np.array([[0, 128, 255]], np.uint16), [0, 128, 255]),
        (np.array([[0, 32896, 65535]], np.uint16), [0, 128, 255]),
        (np.array([[0, 32896, 65535.0]]), [0, 128, 255]),
        (np.array([[0, 0.5, 1.0]]), [0, 127.5, 255]),
        (np.array([[1, 1, 1]], np.uint8), [1, 1, 1]),
        (np.array([[0.0, 1.5, 254.5]]), [0, 1.5, 254.5]),
    ],
)
def test_colours_of_any_range(stored, expected):
    np.testing.assert_allclose(colors_to_255(stored, 'a')[0], expected, atol=1e-4)


@pytest.mark.parametrize('bad', [[-1, 0, 0], [0, 0, 300], [0, 0, 70000], [0, 0, 999.5]])
def test_what_can_be_no_colour_is_refused(bad):
    with pytest.raises(ValueError, match='a: colours reach'):
        colors_to_255(np.array([bad], float), 'a')


def test_coordinates_and_normals_do_not_look_like_colours():
    generator = np.random.default_rng(0)
    assert not look_like_colors(generator.uniform(0, 4, (50, 3)))
    assert not look_like_colors(generator.standard_normal((50, 3)))
    assert look_like_colors(generator.integers(0, 256, (50, 3)))
    assert look_like_colors(generator.uniform(0, 1, (50, 3)))
    assert not look_like_colors(np.full((2, 3), np.nan))
