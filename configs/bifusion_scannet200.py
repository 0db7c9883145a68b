# the scannet200 model with CLIP features fused in, with the settings that were measured on the rooms,
# in 130 epochs from the published checkpoint, beside which only the layers of the fusion are new:
#   python tools/train.py configs/bifusion_scannet200.py --cfg-options load_from=CHECKPOINT
# the same without images: bifusion_scannet200_points.py
_base_ = [
    './_base_/datasets/scannet200_views.py',
    './_base_/models/bifusion_scannet200.py',
    './_base_/models/object_tokens.py',
    './_base_/schedules/poly_130e.py',
]

# many tokens left out, as SegDINO3D trains 200 classes
model = dict(
    encoder=dict(clip_store=_base_.clip_store),
    decoder=dict(_base_.object_tokens, clip_store=_base_.clip_store, token_dropout=0.7),
)
optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys=dict(**_base_.fusion_rates, **_base_.token_rates))
)
