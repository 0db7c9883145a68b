"""One tiny scanned room for the tests of the generator."""

import pytest

from oneformer3d.data.synthetic import RoomScan, generate_scene, tiny_settings


@pytest.fixture(scope='session')
def tiny_scan() -> RoomScan:
    """A room of some 1,400 points and five views of 72 × 96 pixels."""
    return generate_scene(0, tiny_settings())
