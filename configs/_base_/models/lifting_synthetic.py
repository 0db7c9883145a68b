# the synthetic model with lifted image features beside the colours
_base_ = ['./oneformer3d_synthetic.py']

lifted_channels = 32
model = dict(
    _delete_=True,
    type='OneFormer3D',
    data_preprocessor=_base_.model.data_preprocessor,
    encoder=dict(
        type='LiftingEncoder',
        encoder_3d=dict(
            type='SpConvUNetEncoder',
            backbone=_base_.model.backbone,
            in_channels=_base_.model.in_channels + lifted_channels,
            num_channels=_base_.model.num_channels,
            voxel_size=_base_.model.voxel_size,
            min_spatial_shape=_base_.model.min_spatial_shape,
        ),
        image_net=dict(backbone='resnet18', channels=64, use_amp=True, frozen=True),
        mode='concat',
        lifted_channels=lifted_channels,
        aggregator='confidence',
        max_views=6,
    ),
    decoder=_base_.model.decoder,
    criterion=_base_.model.criterion,
    num_semantic_classes=_base_.model.criterion.num_semantic_classes,
    stuff_classes=_base_.model.test_cfg.stuff_classes,
    query_thr=_base_.model.query_thr,
    test_cfg={k: v for k, v in _base_.model.test_cfg.items() if k != 'stuff_classes'},
)
