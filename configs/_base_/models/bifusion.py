# The fusion of image features into a 3D encoder, as measured on the synthetic rooms
# (docs/results.md): beside the 3D features (concat), every room decoded with and without its views,
# classes of single points as a further loss, TinySA over the points; ClipCons changed nothing and is
# left out.
bifusion = dict(
    type='BiFusionEncoder',
    mode='concat',
    # tokens of ViT-B/16; the header of a store that is there decides
    clip_channels=768,
    use_tiny_sa_3d=True,
    train_without_views=True,
    clip_cons=None,
)
side_channels = 96  # of the fused features, beside the 3D ones

# What the decoder reads beside the 3D features starts at zero, and all of the fusion is new: a short
# run would end before its weights have grown. Of these rates image_branch's and fusion_gate's gained
# 1.5 mIoU. The neck is TinySA 2D, where use_tiny_sa_2d has it: at the rate of the rest of the branch it
# cost 9.8 mIoU, at a tenth of it it gained 1.6.
fusion_rates = {
    'side': dict(lr_mult=10),
    'image_branch': dict(lr_mult=3),
    'image_branch.head.neck': dict(lr_mult=0.3),
    'fusion_gate': dict(lr_mult=3),
}
