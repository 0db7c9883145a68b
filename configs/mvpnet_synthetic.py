# second stage of MVPNet, image network and point network together. Start from the first stage:
#   python tools/train.py configs/mvpnet_2d_synthetic.py
#   python tools/train.py configs/mvpnet_synthetic.py --cfg-options
#     load_from=work_dirs/mvpnet_2d_synthetic/epoch_12.pth
# With a frozen image network (its maps are then kept): model.image_net.frozen=True
_base_ = [
    './_base_/datasets/synthetic_images.py',
    './_base_/models/mvpnet_synthetic.py',
    './_base_/schedules/mvpnet.py',
]

val_evaluator = dict(tasks=('semantic',))
test_evaluator = val_evaluator

# the pretrained backbone learns at 1e-4, the projectors and the point network at 1e-3
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(backbone_2d=dict(lr_mult=0.1))))
max_epochs = 16
param_scheduler = dict(end=max_epochs)
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
