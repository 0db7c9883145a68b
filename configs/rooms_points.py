# points alone on rooms as they are scanned: about 40 minutes on one core
_base_ = [
    './_base_/datasets/rooms.py',
    './_base_/models/oneformer3d_rooms.py',
    './_base_/schedules/rooms.py',
]

# of a scan: pieces of what is no wall, floor or ceiling beside the network's masks, and eight views
# of it (docs/real_scans.md)
inference = dict(instances='joined', tta=True)
