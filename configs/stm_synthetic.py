# rooms whose queries sample the images' CLIP features; first: python tools/extract_clip_feat.py
# --data_root data/synthetic --output_dir data/synthetic/clip_feat (see its --help)
_base_ = [
    './_base_/datasets/synthetic_views.py',
    './_base_/models/stm_synthetic.py',
    './_base_/schedules/demo.py',
]
# the views that together see most
train_pipeline = _base_.train_pipeline
train_pipeline[2] = dict(
    type='LoadPosedViews',
    clip_store=_base_.clip_store,
    num_views=8,
    select='coverage',
    candidates=12,
    random_candidates=True,
    image_dropout=0.1,
)
test_pipeline = _base_.test_pipeline
test_pipeline[2] = dict(
    type='LoadPosedViews', clip_store=_base_.clip_store, num_views=12, select='coverage'
)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

# the gates start at zero; at the base rate they would need half of a short run to open
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'view_gates': dict(lr_mult=10)}))
