# rooms with lifted features of a pretrained image network beside the colours. Start from it:
#   python tools/train.py configs/mvpnet_2d_synthetic.py
#   python tools/train.py configs/lifting_oneformer3d_synthetic.py --cfg-options
#     load_from=work_dirs/mvpnet_2d_synthetic/epoch_12.pth
_base_ = [
    './_base_/datasets/synthetic.py',
    './_base_/models/lifting_synthetic.py',
    './_base_/schedules/demo.py',
]

train_pipeline = [
    dict(type='LoadScenePoints'),
    dict(type='LoadSceneAnnotations'),
    dict(type='LoadPosedViews', num_views=12, select='random', image_dropout=0.1),
    *_base_.train_pipeline[2:],
]
test_pipeline = [
    dict(type='LoadScenePoints'),
    dict(type='LoadSceneAnnotations'),
    dict(type='LoadPosedViews', num_views=None),
    *_base_.test_pipeline[2:],
]
# persistent workers keep which points the views see
train_dataloader = dict(persistent_workers=True, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(persistent_workers=True, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
