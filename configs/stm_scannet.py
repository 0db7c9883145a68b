# the published scannet model whose queries sample the images' CLIP features; its checkpoint may
# be loaded first (load_from): only the layers that read the views are new
_base_ = [
    './_base_/datasets/scannet.py',
    './_base_/models/stm_scannet.py',
    './_base_/schedules/poly_512e.py',
]
# LoadPosedViews stands third in both pipelines, e.g. to test with the pixels hidden:
#   --cfg-options test_dataloader.dataset.pipeline.2.hide=pixels
clip_store = 'data/scannet/clip_feat'

train_pipeline = [
    dict(type='LoadScenePoints'),
    dict(type='LoadSceneAnnotations'),
    dict(
        type='LoadPosedViews',
        store=clip_store,
        num_views=12,
        select='coverage',
        candidates=32,
        random_candidates=True,
        image_dropout=0.1,
    ),
    *_base_.train_pipeline[2:],
]
test_pipeline = [
    dict(type='LoadScenePoints'),
    dict(type='LoadSceneAnnotations'),
    dict(type='LoadPosedViews', store=clip_store, num_views=24, select='coverage'),
    *_base_.test_pipeline[2:],
]

# persistent workers keep which points the views see
train_dataloader = dict(persistent_workers=True, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(persistent_workers=True, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

# the gates start at zero; at the base rate they would open late
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'view_gates': dict(lr_mult=10)}))
