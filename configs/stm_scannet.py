# the published scannet model whose queries sample the images' CLIP features; its checkpoint may
# be loaded first (load_from): only the layers that read the views are new
_base_ = [
    './_base_/datasets/scannet_views.py',
    './_base_/models/stm_scannet.py',
    './_base_/schedules/poly_512e.py',
]
# the views that together see most
train_pipeline = _base_.train_pipeline
train_pipeline[2] = dict(
    type='LoadPosedViews',
    clip_store=_base_.clip_store,
    num_views=12,
    select='coverage',
    candidates=32,
    random_candidates=True,
    image_dropout=0.1,
)
test_pipeline = _base_.test_pipeline
test_pipeline[2] = dict(
    type='LoadPosedViews', clip_store=_base_.clip_store, num_views=24, select='coverage'
)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

# the gates start at zero; at the base rate they would open late
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'view_gates': dict(lr_mult=10)}))
