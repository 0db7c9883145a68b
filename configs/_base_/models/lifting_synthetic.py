# the synthetic model with lifted image features beside the colours
_base_ = ['./oneformer3d_synthetic.py']

lifted_channels = 32
model = dict(
    encoder=dict(
        _delete_=True,
        type='LiftingEncoder',
        encoder_3d=dict(
            _base_.model.encoder, in_channels=_base_.model.encoder.in_channels + lifted_channels
        ),
        image_net=dict(backbone='resnet18', channels=64, use_amp=True, frozen=True),
        mode='concat',
        lifted_channels=lifted_channels,
        aggregator='confidence',
        max_views=6,
    ),
)
