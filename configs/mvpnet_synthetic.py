# second stage of MVPNet, image network and point network together. Start from the first stage:
#   python tools/train.py configs/mvpnet_2d_synthetic.py
#   python tools/train.py configs/mvpnet_synthetic.py --cfg-options
#     load_from=work_dirs/mvpnet_2d_synthetic/epoch_12.pth
# With a frozen image network (its maps are then kept): model.image_net.frozen=True
_base_ = [
    './_base_/datasets/synthetic_views.py',
    './_base_/models/mvpnet_synthetic.py',
    './_base_/schedules/demo.py',
]

# images, not stored features
train_pipeline = _base_.train_pipeline
train_pipeline[2] = dict(type='LoadPosedViews', num_views=12, select='random')
test_pipeline = _base_.test_pipeline
test_pipeline[2] = dict(type='LoadPosedViews', num_views=None)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(tasks=('semantic',))
test_evaluator = val_evaluator

# the pretrained backbone learns at 1e-4, the projectors and the point network at 1e-3
max_epochs = 16
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='Adam', lr=1e-3),
    paramwise_cfg=dict(custom_keys={'backbone_2d': dict(lr_mult=0.1)}),
)
param_scheduler = dict(end=max_epochs)
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
