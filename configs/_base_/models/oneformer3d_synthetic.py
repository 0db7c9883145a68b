# a small model for rooms at 5 cm: trains on two CPU cores in minutes
_base_ = ['./oneformer3d.py']

num_semantic_classes = 16
num_instance_classes = 13
num_channels = 16
model = dict(
    encoder=dict(
        type='SpConvUNetEncoder',
        backbone=dict(type='SpConvUNet', num_planes=[16, 32, 48, 64, 80], return_blocks=True),
        in_channels=6,
        num_channels=num_channels,
        voxel_size=0.05,
        min_spatial_shape=128,
        random_grid_start=True,
    ),
    decoder=dict(
        num_layers=3,
        num_instance_classes=num_instance_classes,
        num_semantic_classes=num_semantic_classes,
        in_channels=num_channels,
        d_model=128,
        hidden_dim=256,
    ),
    criterion=dict(
        num_semantic_classes=num_semantic_classes,
        sem_criterion=dict(ignore_index=num_semantic_classes, loss_weight=0.5),
        inst_criterion=dict(num_classes=num_instance_classes),
    ),
    num_semantic_classes=num_semantic_classes,
    stuff_classes=[0, 1, 2],
    test_cfg=dict(topk_insts=200, pan_score_thr=0.3, npoint_thr=10),
)
