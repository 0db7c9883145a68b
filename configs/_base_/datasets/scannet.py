# python tools/create_data.py scannet --root DOWNLOAD --out data/scannet
data_root = 'data/scannet'
class_table = 'scannet'
voxel_size = 0.02

train_pipeline = [
    dict(type='LoadScenePoints'),
    dict(type='LoadSceneAnnotations'),
    dict(type='RandomFlipBEV', prob_x=0.5, prob_y=0.5),
    dict(
        type='RandomRotScaleTrans',
        rot_range=(-3.14, 3.14),
        scale_ratio_range=(0.8, 1.2),
        translation_std=(0.1, 0.1, 0.1),
    ),
    dict(type='NormalizeColor', mean=127.5, std=127.5),
    dict(
        type='ElasticDistortion',
        voxel_size=voxel_size,
        granularity=(6, 20),
        magnitude=(40, 160),
        prob=0.5,
    ),
    dict(type='PackSceneInputs'),
]
test_pipeline = [
    dict(type='LoadScenePoints'),
    dict(type='LoadSceneAnnotations'),
    dict(type='NormalizeColor', mean=127.5, std=127.5),
    dict(type='PackSceneInputs'),
]

train_dataloader = dict(
    batch_size=4,
    num_workers=6,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=True),
    worker_init_fn=dict(type='seed_worker_from_torch'),
    dataset=dict(
        type='IndoorSegDataset',
        data_root=data_root,
        ann_file='oneformer3d_infos_train.json',
        class_table=class_table,
        pipeline=train_pipeline,
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
        ann_file='oneformer3d_infos_val.json',
        class_table=class_table,
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(type='UnifiedSegMetric')
test_evaluator = val_evaluator
