# bifusion_late_synthetic.py as it began: CLIP features are added to the channels of the backbone,
# without a pass without views or classes of points; gains less (docs/results.md)
_base_ = ['./bifusion_late_synthetic.py']

model = dict(
    encoder=dict(mode='residual', train_without_views=False, point_semantic=None),
    decoder=dict(side_channels=0),
)
# the fusion's last layer starts at zero; at the base rate it would need half of a short run to
# reach the size of the features that it is added to
optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys={'_delete_': True, 'encoder.out.': dict(lr_mult=10)})
)
