# python tools/create_data.py s3dis --root Stanford3dDataset_v1.2_Aligned_Version --out data/s3dis
data_root = 'data/s3dis'
class_table = 's3dis'

# no superpoints: the masks' units are the voxels
train_pipeline = [
    dict(type='LoadScenePoints'),
    dict(type='LoadSceneAnnotations', with_superpoints=False),
    dict(type='SamplePoints', num_points=180000),
    dict(type='RandomFlipBEV', prob_x=0.5, prob_y=0.5),
    dict(
        type='RandomRotScaleTrans',
        rot_range=(0.0, 0.0),
        scale_ratio_range=(0.9, 1.1),
        translation_std=(0.1, 0.1, 0.1),
    ),
    dict(type='NormalizeColor', mean=127.5, std=127.5),
    dict(type='PackSceneInputs'),
]
test_pipeline = [
    dict(type='LoadScenePoints'),
    dict(type='LoadSceneAnnotations', with_superpoints=False),
    dict(type='NormalizeColor', mean=127.5, std=127.5),
    dict(type='PackSceneInputs'),
]

train_areas = (1, 2, 3, 4, 6)
train_dataloader = dict(
    batch_size=2,
    num_workers=3,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=True),
    worker_init_fn=dict(type='seed_worker_from_torch'),
    dataset=dict(
        type='ConcatDataset',
        datasets=[
            dict(
                type='IndoorSegDataset',
                data_root=data_root,
                ann_file=f'oneformer3d_infos_Area_{area}.json',
                class_table=class_table,
                pipeline=train_pipeline,
            )
            for area in train_areas
        ],
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=1,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='IndoorSegDataset',
        data_root=data_root,
        ann_file='oneformer3d_infos_Area_5.json',
        class_table=class_table,
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(type='UnifiedSegMetric')
test_evaluator = val_evaluator
