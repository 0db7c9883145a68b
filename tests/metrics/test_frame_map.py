"""Frame-mAP against numbers worked out by hand."""

import numpy as np
import pytest

from oneformer3d.metrics.frame_map import FrameBoxes, average_precision, box_iou, frame_map

LEFT, RIGHT = [0.0, 0.0, 0.4, 1.0], [0.6, 0.0, 1.0, 1.0]


def frame(boxes, actions):
    return FrameBoxes(np.array(boxes).reshape(-1, 4), np.array(actions, float).reshape(-1, 2))


def test_right_boxes_and_actions_score_one():
    true = [frame([LEFT, RIGHT], [[1, 0], [1, 1]]), frame([LEFT], [[0, 1]])]
    found = frame_map(true, true)
    assert found.ap.tolist() == [1.0, 1.0]
    assert found.mean == 1.0


def test_a_second_box_of_one_person_is_false_and_ranks_count():
    """Action 0: found at .9, again at .8 (false), another person at .7: ½ · 1 + ½ · ⅔."""
    true = [frame([LEFT, RIGHT], [[1, 0], [1, 0]])]
    found = [frame([LEFT, LEFT, RIGHT], [[0.9, 0], [0.8, 0], [0.7, 0]])]
    scores = frame_map(found, true)
    assert scores.ap[0] == pytest.approx(0.5 + 0.5 * 2 / 3)
    assert np.isnan(scores.ap[1])  # nobody does it
    assert scores.mean == scores.ap[0]


def test_boxes_below_the_threshold_and_of_other_frames_are_false():
    shifted = [0.2, 0.0, 0.6, 1.0]  # IoU ⅓ with LEFT
    true = [frame([LEFT], [[1, 0]]), frame([], [])]
    assert frame_map([frame([shifted], [[1, 0]]), frame([], [])], true).ap[0] == 0
    assert frame_map([frame([], []), frame([LEFT], [[1, 0]])], true).ap[0] == 0
    assert frame_map([frame([shifted], [[1, 0]]), frame([], [])], true, 0.3).ap[0] == 1
    # a false one of higher score halves the precision of the right one
    noisy = [frame([LEFT], [[0.5, 0]]), frame([RIGHT], [[0.9, 0]])]
    assert frame_map(noisy, true).ap[0] == 0.5


def test_precision_is_made_to_fall_with_recall():
    """False, right, right of two: precision ½, ⅔ becomes ⅔, ⅔."""
    assert average_precision(np.array([False, True, True]), 2) == pytest.approx(2 / 3)
    assert average_precision(np.array([], dtype=bool), 3) == 0


def test_overlap():
    boxes = np.array([LEFT, RIGHT])
    np.testing.assert_allclose(box_iou(boxes, boxes), np.eye(2))
    assert box_iou(boxes, np.zeros((0, 4))).shape == (2, 0)


def test_frames_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match='0 frames with detections, 1 with truth'):
        frame_map([], [frame([LEFT], [[1, 0]])])
    other = FrameBoxes(np.array([LEFT]), np.ones((1, 3)))
    with pytest.raises(ValueError, match='different numbers of actions'):
        frame_map([other], [frame([LEFT], [[1, 0]])])
