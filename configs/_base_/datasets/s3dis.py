# python tools/create_data.py s3dis --root Stanford3dDataset_v1.2_Aligned_Version --out data/s3dis
_base_ = ['./indoor.py']

data_root = 'data/s3dis'
class_table = 's3dis'
train_areas = (1, 2, 3, 4, 6)
test_area = 5

# no superpoints: the masks' units are the voxels
load_scene = [
    dict(type='LoadScenePoints'),
    dict(type='LoadSceneAnnotations', with_superpoints=False),
]
draw = dict(type='SamplePoints', num_points=180000)
move = dict(
    type='RandomRotScaleTrans',
    rot_range=(0.0, 0.0),
    scale_ratio_range=(0.9, 1.1),
)
train_pipeline = [*load_scene, draw, _base_.flip, move, _base_.normalize, _base_.pack]
test_pipeline = [*load_scene, _base_.normalize, _base_.pack]
tta_pipeline = [*test_pipeline[:-1], _base_.mirror]

areas = dict(data_root=data_root, class_table=class_table)
train_dataloader = dict(
    batch_size=2,
    num_workers=3,
    dataset=dict(
        _delete_=True,
        type='ConcatDataset',
        datasets=[
            dict(
                type='IndoorSegDataset',
                **areas,
                ann_file=f'oneformer3d_infos_Area_{area}.json',
                pipeline=train_pipeline,
            )
            for area in train_areas
        ],
    ),
)
val_dataloader = dict(
    dataset=dict(areas, ann_file=f'oneformer3d_infos_Area_{test_area}.json', pipeline=test_pipeline)
)
test_dataloader = val_dataloader
