# rooms with views: python tools/extract_clip_feat.py --data_root data/synthetic
# --output_dir data/synthetic/clip_feat (see its --help)
_base_ = ['./synthetic.py']

clip_store = 'data/synthetic/clip_feat'
# LoadPosedViews stands third in both pipelines, e.g. to test with the pixels hidden:
#   --cfg-options test_dataloader.dataset.pipeline.2.hide=pixels
train_pipeline = [
    *_base_.train_pipeline[:2],
    dict(
        type='LoadPosedViews',
        clip_store=clip_store,
        num_views=12,
        select='random',
        view_dropout=0.1,
        image_dropout=0.2,
    ),
    *_base_.train_pipeline[2:],
]
test_pipeline = [
    *_base_.test_pipeline[:2],
    dict(type='LoadPosedViews', clip_store=clip_store, num_views=None),
    *_base_.test_pipeline[2:],
]
# persistent workers keep which points the views see
train_dataloader = dict(persistent_workers=True, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(persistent_workers=True, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
