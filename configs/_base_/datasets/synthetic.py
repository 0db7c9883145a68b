# procedural rooms: python tools/create_data.py synthetic --out data/synthetic
data_root = 'data/synthetic'
class_table = 'synthetic'
voxel_size = 0.05

train_pipeline = [
    dict(type='LoadScenePoints'),
    dict(type='LoadSceneAnnotations'),
    dict(type='RandomFlipBEV', prob_x=0.5, prob_y=0.5),
    dict(
        type='RandomRotScaleTrans',
        # the rooms are aligned with the axes; full turns need a longer schedule than the demo's
        rot_range=(-0.2, 0.2),
        scale_ratio_range=(0.9, 1.1),
        translation_std=(0.1, 0.1, 0.1),
    ),
    dict(type='NormalizeColor', mean=127.5, std=127.5),
    dict(type='PackSceneInputs'),
]
test_pipeline = [
    dict(type='LoadScenePoints'),
    dict(type='LoadSceneAnnotations'),
    dict(type='NormalizeColor', mean=127.5, std=127.5),
    dict(type='PackSceneInputs'),
]

train_dataloader = dict(
    batch_size=1,
    num_workers=1,
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

# rooms have one point per 5 cm: the smallest objects are some 20 points
val_evaluator = dict(type='UnifiedSegMetric', min_region_size=10)
test_evaluator = val_evaluator
