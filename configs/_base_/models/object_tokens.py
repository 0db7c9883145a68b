# queries that also attend to what single views show of objects; laid over the decoder of a model
object_tokens = dict(
    type='ObjectTokenDecoder',
    # tokens of ViT-B/16; the header of a store that is there decides
    clip_channels=768,
    radius=0.2,
    token_dropout=0.1,  # of ScanNet's 20 classes in SegDINO3D
)
# their gates start at zero; at the base rate they would need half of a short run to open
token_rates = dict(token_gates=dict(lr_mult=10))
