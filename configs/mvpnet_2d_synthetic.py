# first stage of MVPNet: the image network on the rooms' semantic pictures; tested by the votes of
# the views at the points
_base_ = [
    './_base_/datasets/synthetic_images.py',
    './_base_/models/mvpnet_synthetic.py',
    './_base_/schedules/mvpnet.py',
]

model = dict(
    _delete_=True,
    type='MVPNet2D',
    data_preprocessor=_base_.model.data_preprocessor,
    image_net=_base_.image_net,
    num_classes=_base_.num_semantic_classes,
    vote='soft',
)
# votes of pictures do not change when the points are turned
tta_model = None
train_pipeline = [
    dict(type='LoadViewImages', num_views=6, select='random', flip=0.5),
    dict(type='PackViewImages'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_evaluator = dict(tasks=('semantic',))
test_evaluator = val_evaluator

max_epochs = 12
param_scheduler = dict(end=max_epochs)
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
