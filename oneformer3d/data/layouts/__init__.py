"""Folders of posed RGB-D frames as their authors ship them, recognised by what lies in them.

Enters: a folder. Leaves: a ``PosedFolder`` of ``PosedFrame`` records, or None; fused points.

=====================  =====================================================================
``find``               which layout a folder is in, and its frames in the house's terms
``frame_files``        one pose file per frame: 7-Scenes, 3DMatch, ScanNet's export, posed_images
``trajectories``       all poses in one file: TUM, Redwood, Replica, slambook2, HoloLens
``nerfstudio``         ``transforms.json``
``arkit``              ARKitScenes, ScanNet++ iPhone
``colmap``             a text model
``listing``            files by role, frame and time
``cameras``            conventions, quaternions, K
``settle``             K of each image, and what is said about it
``pixels``             colour and depth, lens distortion taken out
``doubts``             whether the frames agree as they are read
``records``            what travels between these
=====================  =====================================================================
"""

from .find import LAYOUTS, find_layout, is_recording, unknown_layout
from .pixels import read_color, read_depth
from .records import Distortion, PosedFolder, PosedFrame

__all__ = [
    'LAYOUTS',
    'Distortion',
    'PosedFolder',
    'PosedFrame',
    'find_layout',
    'is_recording',
    'read_color',
    'read_depth',
    'unknown_layout',
]
