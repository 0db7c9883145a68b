# the scannet model with CLIP features fused in, with the settings that were measured on the rooms;
# the published checkpoint may be loaded first (load_from): only the layers of the fusion are new;
# the same without images: bifusion_scannet_points.py
_base_ = [
    './_base_/datasets/scannet_views.py',
    './_base_/models/bifusion_scannet.py',
    './_base_/models/object_tokens.py',
    './_base_/schedules/poly_512e.py',
]

model = dict(
    encoder=dict(clip_store=_base_.clip_store),
    decoder=dict(_base_.object_tokens, clip_store=_base_.clip_store),
)
optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys=dict(**_base_.fusion_rates, **_base_.token_rates))
)
