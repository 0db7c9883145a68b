# the scannet200 model with image features fused into its point features
_base_ = ['./oneformer3d_scannet200.py', './bifusion.py']

model = dict(
    encoder=dict(
        _delete_=True,
        **_base_.bifusion,
        encoder_3d=_base_.model.encoder,
        point_channels=_base_.num_channels,
        point_semantic=dict(num_classes=_base_.num_semantic_classes, loss_weight=1.0),
    ),
    decoder=dict(side_channels=_base_.side_channels),
)
