# rooms whose queries sample the images' CLIP features; first: python tools/extract_clip_feat.py
# --data_root data/synthetic --output_dir data/synthetic/clip_feat (see its --help)
_base_ = [
    './_base_/datasets/synthetic_coverage.py',
    './_base_/models/stm_synthetic.py',
    './_base_/schedules/demo.py',
]

model = dict(decoder=dict(pyramid=dict(clip_store=_base_.clip_store)))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=_base_.stm_rates))
