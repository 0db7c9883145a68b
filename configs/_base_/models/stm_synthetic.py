# the synthetic model whose queries also read the posed images
_base_ = ['./oneformer3d_synthetic.py']

model = dict(
    decoder=dict(
        type='STMQueryDecoder',
        pyramid=dict(
            type='MapPyramid',
            clip_store='data/synthetic/clip_feat',
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
