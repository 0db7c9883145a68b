# the published ScanNet model; its checkpoint loads strictly
_base_ = [
    './_base_/datasets/scannet.py',
    './_base_/models/oneformer3d_scannet.py',
    './_base_/schedules/poly_512e.py',
]
