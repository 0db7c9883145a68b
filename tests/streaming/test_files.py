import numpy as np

from oneformer3d.streaming.files import classes_of_tracks


def test_what_no_track_owns_has_no_class():
    """The floor was drawn as the first class of the table, a wall."""
    track = np.array([4, -1, 9, 4, 6])
    classes = classes_of_tracks(track, {4: 0, 9: 3}, num_classes=8)
    np.testing.assert_array_equal(classes, [0, 8, 3, 0, 8])
