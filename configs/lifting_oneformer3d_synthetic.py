# rooms with lifted features of a pretrained image network beside the colours. Start from it:
#   python tools/train.py configs/mvpnet_2d_synthetic.py
#   python tools/train.py configs/lifting_oneformer3d_synthetic.py --cfg-options
#     load_from=work_dirs/mvpnet_2d_synthetic/epoch_12.pth
_base_ = [
    './_base_/datasets/synthetic_images.py',
    './_base_/models/lifting_synthetic.py',
    './_base_/schedules/demo.py',
]

train_views = dict(_base_.train_views, image_dropout=0.1)
train_pipeline = [*_base_.load_scene, train_views, *_base_.train_steps]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
