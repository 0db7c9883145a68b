# rooms with CLIP features beside the points' own; first: python tools/extract_clip_feat.py
# --data_root data/synthetic --output_dir data/synthetic/clip_feat (see its --help)
_base_ = ['./bifusion_residual_synthetic.py']

# As measured in docs/results.md: beside the 3D features, every room decoded with and without its
# views, and classes of single points as a further loss.
model = dict(
    encoder=dict(
        mode='concat',
        train_without_views=True,
        point_semantic=dict(num_classes=_base_.model.num_semantic_classes, loss_weight=1.0),
        use_tiny_sa_3d=True,
        clip_cons=None,
    ),
    decoder=dict(side_channels=96),
)
# What the decoder reads beside the 3D features starts at zero, and all of the fusion is new: a short
# run would end before its weights have grown.
optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys=dict(
            side=dict(lr_mult=10), image_branch=dict(lr_mult=3), fusion_gate=dict(lr_mult=3)
        )
    )
)
