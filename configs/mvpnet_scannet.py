# MVPNet on ScanNet, classes of points only, image network and point network together. Pictures of
# classes that a first stage would need are not in the converted data, so start from ImageNet:
#   python tools/train.py configs/mvpnet_scannet.py --cfg-options
#     model.image_net.weights=IMAGENET1K_V2
# (a name that torchvision fetches, or a file). With a frozen image network (its maps are then kept):
# model.image_net.frozen=True. Not measured yet.
_base_ = [
    './_base_/datasets/scannet_images.py',
    './_base_/models/mvpnet_scannet.py',
    './_base_/schedules/mvpnet.py',
]

val_evaluator = dict(tasks=('semantic',))
test_evaluator = val_evaluator

# the pretrained backbone learns at 1e-4, the projectors and the point network at 1e-3
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(backbone_2d=dict(lr_mult=0.1))))
max_epochs = 60
param_scheduler = dict(end=max_epochs)
train_cfg = dict(max_epochs=max_epochs, val_interval=10)
