# the scannet model whose queries also read the posed images
_base_ = ['./oneformer3d_scannet.py']

model = dict(
    decoder=dict(
        type='STMQueryDecoder',
        pyramid=dict(
            type='MapPyramid',
            clip_store='data/scannet/clip_feat',
            # of ViT-B/16 after the pixel shuffle; the header of a store that is there decides
            clip_channels=192,
            channels=128,
            num_levels=4,
        ),
        num_view_points=16,
        num_view_slots=4,
        num_view_groups=4,
        anchors=['mask', 'own'],
        box_mode='extent',
    ),
)
