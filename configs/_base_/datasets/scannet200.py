# python tools/create_data.py scannet200 --root DOWNLOAD --out data/scannet200
# ScanNet with other labels and colours normalised by the published statistics;
# wall and floor are made the stuff classes 0 and 1 by the class table
_base_ = ['./scannet.py']

data_root = 'data/scannet200'
class_table = 'scannet200'
normalize = dict(
    type='NormalizeColor',
    mean=(0.4779 * 255, 0.4303 * 255, 0.3750 * 255),
    std=(0.2834 * 255, 0.2757 * 255, 0.2702 * 255),
)

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
    normalize,
    dict(
        type='ElasticDistortion',
        voxel_size=0.02,
        granularity=(6, 20),
        magnitude=(40, 160),
        prob=0.5,
    ),
    dict(type='PackSceneInputs'),
]
test_pipeline = [
    dict(type='LoadScenePoints'),
    dict(type='LoadSceneAnnotations'),
    normalize,
    dict(type='PackSceneInputs'),
]

train_dataloader = dict(
    dataset=dict(data_root=data_root, class_table=class_table, pipeline=train_pipeline)
)
val_dataloader = dict(
    dataset=dict(data_root=data_root, class_table=class_table, pipeline=test_pipeline)
)
test_dataloader = val_dataloader
