# points alone on rooms as they are scanned: about an hour on one core
_base_ = [
    './_base_/datasets/rooms.py',
    './_base_/models/oneformer3d_rooms.py',
    './_base_/schedules/rooms.py',
]

# of a scan: pieces of what is no wall, floor or ceiling beside the network's masks (docs/real_scans.md)
inference = dict(instances='joined')
