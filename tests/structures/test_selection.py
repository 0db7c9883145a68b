"""Some objects of a scan become a scan of their own."""

import numpy as np
import pytest

from oneformer3d.structures.selection import select_instances
from tests.viewer.scenes import small_segmentation


def test_points_and_masks_are_those_of_the_chosen():
    result = small_segmentation()
    lamp = select_instances(result, [1])
    np.testing.assert_array_equal(lamp.points, result.points[2600:])
    assert [one.name for one in lamp.instances] == ['lamp']
    np.testing.assert_array_equal(lamp.instances[0].members, np.arange(400))
    before, after = result.instances[1].box, lamp.instances[0].box
    np.testing.assert_allclose(after.centre, before.centre, atol=1e-6)
    np.testing.assert_allclose(after.size, before.size, atol=1e-6)
    np.testing.assert_array_equal(lamp.instance, 0)
    np.testing.assert_array_equal(lamp.semantic, 2)


def test_all_of_them_leave_the_floor_out():
    both = select_instances(small_segmentation(), [1, 0, 1])
    assert [one.num_points for one in both.instances] == [600, 400]
    np.testing.assert_array_equal(np.unique(both.instance, return_counts=True)[1], [600, 400])


@pytest.mark.parametrize('rows', [[], [2], [-1]])
def test_what_is_no_instance_is_refused(rows):
    with pytest.raises(ValueError, match='rows of 2 instances'):
        select_instances(small_segmentation(), rows)
