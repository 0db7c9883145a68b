# the scannet model with image features fused into its point features
_base_ = ['./oneformer3d_scannet.py']

model = dict(
    _delete_=True,
    type='OneFormer3D',
    data_preprocessor=_base_.model.data_preprocessor,
    encoder=dict(
        type='BiFusionEncoder',
        encoder_3d=dict(
            type='SpConvUNetEncoder',
            backbone=_base_.model.backbone,
            in_channels=_base_.model.in_channels,
            num_channels=_base_.model.num_channels,
            voxel_size=_base_.model.voxel_size,
            min_spatial_shape=_base_.model.min_spatial_shape,
        ),
        point_channels=_base_.model.num_channels,
        mode='concat',
        clip_store='data/scannet/clip_feat',
        # of ViT-B/16 after the pixel shuffle; the header of a store that is there decides
        clip_channels=192,
        use_tiny_sa_3d=True,
        use_tiny_sa_2d=False,
        train_without_views=True,
        point_semantic=dict(
            num_classes=_base_.model.criterion.num_semantic_classes, loss_weight=1.0
        ),
        clip_cons=dict(type='ClipConsCriterion', loss_weight=0.2, view_weight=0.05),
    ),
    decoder=dict(**_base_.model.decoder, side_channels=96),
    criterion=_base_.model.criterion,
    num_semantic_classes=_base_.model.criterion.num_semantic_classes,
    stuff_classes=_base_.model.test_cfg.stuff_classes,
    query_thr=_base_.model.query_thr,
    test_cfg={k: v for k, v in _base_.model.test_cfg.items() if k != 'stuff_classes'},
)
