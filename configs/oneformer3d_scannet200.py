# the published ScanNet200 model; its checkpoint loads strictly
_base_ = [
    './_base_/datasets/scannet200.py',
    './_base_/models/oneformer3d_scannet200.py',
    './_base_/schedules/poly_512e.py',
]
