# rooms with CLIP features beside the points' own; first: python tools/extract_clip_feat.py
# --data_root data/synthetic --output_dir data/synthetic/clip_feat (see its --help)
_base_ = ['./bifusion_residual_synthetic.py']

# as measured in docs/results.md; TinySA and ClipCons wait for their rows in this mode
model = dict(
    encoder=dict(mode='concat', use_tiny_sa_3d=False, clip_cons=None),
    decoder=dict(side_channels=96),
)
# what the decoder reads beside the 3D features starts at zero, as the layer of the residual does
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(side=dict(lr_mult=10))))
