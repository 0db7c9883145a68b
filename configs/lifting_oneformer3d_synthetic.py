# rooms with lifted features of a pretrained image network beside the colours. Start from it:
#   python tools/train.py configs/mvpnet_2d_synthetic.py
#   python tools/train.py configs/lifting_oneformer3d_synthetic.py --cfg-options
#     load_from=work_dirs/mvpnet_2d_synthetic/epoch_12.pth
_base_ = [
    './_base_/datasets/synthetic_views.py',
    './_base_/models/lifting_synthetic.py',
    './_base_/schedules/demo.py',
]

# images, not stored features
train_pipeline = _base_.train_pipeline
train_pipeline[2] = dict(type='LoadPosedViews', num_views=12, select='random', image_dropout=0.1)
test_pipeline = _base_.test_pipeline
test_pipeline[2] = dict(type='LoadPosedViews', num_views=None)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
