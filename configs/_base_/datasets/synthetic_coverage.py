# rooms with few views, those that together see most
_base_ = ['./synthetic_views.py']

train_views = dict(
    type='LoadPosedViews',
    clip_store=_base_.clip_store,
    num_views=8,
    select='coverage',
    candidates=12,
    random_candidates=True,
    image_dropout=0.1,
)
test_views = dict(
    type='LoadPosedViews', clip_store=_base_.clip_store, num_views=12, select='coverage'
)
train_pipeline = [*_base_.load_scene, train_views, *_base_.train_steps]
test_pipeline = [*_base_.load_scene, test_views, *_base_.test_steps]
tta_pipeline = [*test_pipeline[:-1], _base_.mirror]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
