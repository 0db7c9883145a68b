# what bifusion_scannet.py is to be compared with: the 3D network alone, as long and from the same
# first weights
_base_ = [
    './_base_/datasets/scannet.py',
    './_base_/models/oneformer3d_scannet.py',
    './_base_/schedules/poly_512e.py',
]
