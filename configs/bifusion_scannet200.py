# the published scannet200 model with CLIP features fused in; its checkpoint may be loaded
# first (load_from): only the layers of the fusion are new
_base_ = [
    './_base_/datasets/scannet200_views.py',
    './_base_/models/bifusion_scannet200.py',
    './_base_/schedules/poly_512e.py',
]
