# the scannet model whose queries sample the images' CLIP features; the published checkpoint may be
# loaded first (load_from): only the layers that read the views are new
_base_ = [
    './_base_/datasets/scannet_coverage.py',
    './_base_/models/stm_scannet.py',
    './_base_/schedules/poly_512e.py',
]

model = dict(decoder=dict(pyramid=dict(clip_store=_base_.clip_store)))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=_base_.stm_rates))
