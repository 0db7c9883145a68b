# what bifusion_scannet200.py is to be compared with: the 3D network alone, as long and from the same
# checkpoint (--cfg-options load_from=CHECKPOINT)
_base_ = [
    './_base_/datasets/scannet200.py',
    './_base_/models/oneformer3d_scannet200.py',
    './_base_/schedules/poly_130e.py',
]
