# python tools/create_data.py scannet --root DOWNLOAD --out data/scannet
_base_ = ['./indoor.py']

data_root = 'data/scannet'
class_table = 'scannet'

move = dict(
    type='RandomRotScaleTrans',
    rot_range=(-3.14, 3.14),
    scale_ratio_range=(0.8, 1.2),
)
distort = dict(
    type='ElasticDistortion',
    voxel_size=0.02,
    granularity=(6, 20),
    magnitude=(40, 160),
    prob=0.5,
)
train_steps = [_base_.flip, move, _base_.normalize, distort, _base_.pack]
test_steps = [_base_.normalize, _base_.pack]
train_pipeline = [*_base_.load_scene, *train_steps]
test_pipeline = [*_base_.load_scene, *test_steps]
tta_pipeline = [*test_pipeline[:-1], _base_.mirror_and_turn]

scans = dict(data_root=data_root, class_table=class_table)
train_dataloader = dict(batch_size=4, num_workers=6, dataset=dict(scans, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(scans, pipeline=test_pipeline))
test_dataloader = val_dataloader

# for the datasets with views; these add where the features lie
train_views = dict(
    type='LoadPosedViews', num_views=16, select='random', view_dropout=0.1, image_dropout=0.2
)
test_views = dict(type='LoadPosedViews', num_views=40)
