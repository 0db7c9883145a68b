# scannet with the images themselves, a quarter as wide as the exported ones
_base_ = ['./scannet.py']

image_size = (240, 320)
train_views = dict(type='LoadPosedViews', num_views=12, select='random', image_size=image_size)
test_views = dict(type='LoadPosedViews', num_views=40, image_size=image_size)
train_pipeline = [*_base_.load_scene, train_views, *_base_.train_steps]
test_pipeline = [*_base_.load_scene, test_views, *_base_.test_steps]
tta_pipeline = [*test_pipeline[:-1], _base_.mirror_and_turn]

# persistent workers keep which points the views see
train_dataloader = dict(persistent_workers=True, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(persistent_workers=True, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
