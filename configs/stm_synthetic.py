# rooms whose queries sample the images' CLIP features; first: python tools/extract_clip_feat.py
# --data_root data/synthetic --output_dir data/synthetic/clip_feat (see its --help)
_base_ = [
    './_base_/datasets/synthetic.py',
    './_base_/models/stm_synthetic.py',
    './_base_/schedules/demo.py',
]
# LoadPosedViews stands third in both pipelines, e.g. to test with the pixels hidden:
#   --cfg-options test_dataloader.dataset.pipeline.2.hide=pixels
clip_store = 'data/synthetic/clip_feat'

train_pipeline = [
    dict(type='LoadScenePoints'),
    dict(type='LoadSceneAnnotations'),
    dict(
        type='LoadPosedViews',
        store=clip_store,
        num_views=8,
        select='coverage',
        candidates=12,
        random_candidates=True,
        image_dropout=0.1,
    ),
    *_base_.train_pipeline[2:],
]
test_pipeline = [
    dict(type='LoadScenePoints'),
    dict(type='LoadSceneAnnotations'),
    dict(type='LoadPosedViews', store=clip_store, num_views=12, select='coverage'),
    *_base_.test_pipeline[2:],
]

# persistent workers keep which points the views see
train_dataloader = dict(persistent_workers=True, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(persistent_workers=True, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

# the gates start at zero; at the base rate they would need half of a short run to open
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'view_gates': dict(lr_mult=10)}))
