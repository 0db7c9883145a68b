# rooms with the images themselves, for models that have an image network
_base_ = ['./synthetic.py']

train_views = dict(type='LoadPosedViews', num_views=12, select='random')
test_views = dict(type='LoadPosedViews', num_views=None)
train_pipeline = [*_base_.load_scene, train_views, *_base_.train_steps]
test_pipeline = [*_base_.load_scene, test_views, *_base_.test_steps]
tta_pipeline = [*test_pipeline[:-1], _base_.mirror]

# persistent workers keep which points the views see
train_dataloader = dict(persistent_workers=True, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(persistent_workers=True, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
