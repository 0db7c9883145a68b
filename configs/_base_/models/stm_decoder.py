# queries that also read the posed images; laid over the decoder of a model
stm_decoder = dict(
    type='STMQueryDecoder',
    pyramid=dict(
        type='MapPyramid',
        # tokens of ViT-B/16; the header of a store that is there decides
        clip_channels=768,
        channels=64,
        num_levels=3,
    ),
    num_view_points=8,
    num_view_slots=4,
    num_view_groups=4,
    anchors=['mask', 'own'],
    box_mode='extent',
)
# their gates start at zero; at the base rate they would need half of a short run to open
stm_rates = dict(view_gates=dict(lr_mult=10))
