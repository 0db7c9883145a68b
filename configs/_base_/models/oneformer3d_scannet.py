# the ScanNet model; the published checkpoint loads strictly (its settings: ../../published/)
_base_ = ['./oneformer3d.py']

num_semantic_classes = 20
num_instance_classes = 18
num_channels = 32
model = dict(
    encoder=dict(
        type='SpConvUNetEncoder',
        backbone=dict(type='SpConvUNet', num_planes=[32, 64, 96, 128, 160], return_blocks=True),
        in_channels=6,
        num_channels=num_channels,
        voxel_size=0.02,
        min_spatial_shape=128,
        random_grid_start=True,
    ),
    decoder=dict(
        num_layers=6,
        num_instance_classes=num_instance_classes,
        num_semantic_classes=num_semantic_classes,
        in_channels=num_channels,
        d_model=256,
        hidden_dim=1024,
    ),
    criterion=dict(
        num_semantic_classes=num_semantic_classes,
        sem_criterion=dict(ignore_index=num_semantic_classes, loss_weight=0.2),
        inst_criterion=dict(num_classes=num_instance_classes, fix_dice_loss_weight=True),
    ),
    num_semantic_classes=num_semantic_classes,
    stuff_classes=[0, 1],
    test_cfg=dict(topk_insts=600, pan_score_thr=0.5, npoint_thr=100),
)
