# the S3DIS model: voxels instead of superpoints, learned queries; the published checkpoint loads
# strictly (its settings: ../../published/)
_base_ = ['./oneformer3d.py']

num_classes = 13
num_channels = 64
model = dict(
    data_preprocessor=dict(_delete_=True, type='Det3DDataPreprocessor'),
    use_superpoints=False,
    encoder=dict(
        type='SpConvUNetEncoder',
        backbone=dict(type='SpConvUNet', num_planes=[64, 128, 192, 256, 320], return_blocks=True),
        in_channels=6,
        num_channels=num_channels,
        voxel_size=0.05,
        min_spatial_shape=128,
        random_grid_start=True,
    ),
    decoder=dict(
        _delete_=True,
        type='QueryDecoder',
        num_layers=3,
        num_classes=num_classes,
        num_instance_queries=400,
        num_semantic_queries=num_classes,
        num_instance_classes=num_classes,
        in_channels=num_channels,
        d_model=256,
        num_heads=8,
        hidden_dim=1024,
        dropout=0.0,
        activation_fn='gelu',
        iter_pred=True,
        attn_mask=True,
        fix_attention=True,
        objectness_flag=True,
    ),
    criterion=dict(
        type='S3DISUnifiedCriterion',
        num_semantic_classes=num_classes,
        sem_criterion=dict(type='S3DISSemanticCriterion', loss_weight=5.0),
        inst_criterion=dict(
            matcher=dict(
                _delete_=True,
                type='HungarianMatcher',
                costs=_base_.model.criterion.inst_criterion.matcher.costs,
            ),
            num_classes=num_classes,
            non_object_weight=0.05,
            fix_dice_loss_weight=True,
        ),
    ),
    num_semantic_classes=num_classes,
    stuff_classes=[0, 1, 2, 3, 4, 5, 6, 12],
    test_cfg=dict(
        topk_insts=450,
        pan_score_thr=0.4,
        npoint_thr=300,
        obj_normalization_thr=0.01,
        sp_score_thr=0.15,
    ),
)
