"""Segment while scanning: frames in, tracks out.

To be read in this order:

``segmentor``     ``StreamingSegmentor``: frames of a camera in, tracks out; ``finalize``
``frames``        one RGB-D frame → points; ``depth_superpoints``: and superpoints
``surface_map``   the map of points; ``thin_surface``: one layer of it
``local_model``   the network around a frame
``sources``       folders, growing folders, clocks; ``files``: what a stream leaves behind
``records``       what one frame says (``FrameInstances``), what is known after it (``Track``)
``online_merge``  ``OnlineMerge``: which instance of a frame is which track
``affinity``      overlap where both were visible, appearance, "new object" → who matches whom
``votes``         voxel → at most three (track, weight); the only map of objects there is
``track_sums``    what a track adds up: features, classes, scores, directions it was seen from
``repair``        tracks that fall apart, tracks that overlap
``ledger``        what every frame voted, on disk, so that it can be taken back
``voxels``        world voxels as sorted numbers
"""

from .online_merge import MergeSettings, MergeState, OnlineMerge
from .records import CameraPoints, Event, FrameInstances, Track

__all__ = [
    'CameraPoints',
    'Event',
    'FrameInstances',
    'MergeSettings',
    'MergeState',
    'OnlineMerge',
    'Track',
]
