# rooms with views: python tools/extract_clip_feat.py --data_root data/synthetic
# --output_dir data/synthetic/clip_feat (see its --help)
_base_ = ['./synthetic.py']

clip_store = f'{_base_.data_root}/clip_feat'
train_views = dict(
    type='LoadPosedViews',
    clip_store=clip_store,
    num_views=12,
    select='random',
    view_dropout=0.1,
    image_dropout=0.2,
)
test_views = dict(type='LoadPosedViews', clip_store=clip_store, num_views=None)
train_pipeline = [*_base_.load_scene, train_views, *_base_.train_steps]
test_pipeline = [*_base_.load_scene, test_views, *_base_.test_steps]
tta_pipeline = [*test_pipeline[:-1], _base_.mirror]

# persistent workers keep which points the views see
train_dataloader = dict(persistent_workers=True, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(persistent_workers=True, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
