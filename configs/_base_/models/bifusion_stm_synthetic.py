# image features fused into the points, and queries that read the images again
_base_ = ['./bifusion_synthetic.py']

model = dict(
    decoder=dict(
        type='STMQueryDecoder',
        pyramid=dict(
            type='MapPyramid',
            clip_store=_base_.model.encoder.clip_store,
            in_channels=192,
            channels=64,
            num_levels=3,
        ),
        num_view_points=8,
        num_view_slots=4,
        num_view_groups=4,
        anchors=['mask', 'own'],
        box_mode='extent',
    ),
)
