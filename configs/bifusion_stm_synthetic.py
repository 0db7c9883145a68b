# rooms with CLIP features fused into the points and read again by the queries; features as for
# bifusion_synthetic.py, which in short runs is the better model (docs/results.md)
_base_ = ['./bifusion_synthetic.py']

model = dict(
    decoder=dict(
        type='STMQueryDecoder',
        pyramid=dict(
            type='MapPyramid',
            clip_store=_base_.clip_store,
            # of ViT-B/16 after the pixel shuffle; the header of a store that is there decides
            clip_channels=192,
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
# the gates of the queries start at zero
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(view_gates=dict(lr_mult=10))))
