# rooms with CLIP features added to the channels of the backbone; features as for
# bifusion_synthetic.py
_base_ = [
    './_base_/datasets/synthetic_views.py',
    './_base_/models/bifusion_synthetic.py',
    './_base_/schedules/demo.py',
]

# the fusion's last layer starts at zero; at the base rate it would need half of a short run to
# reach the size of the features that it is added to
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'encoder.out.': dict(lr_mult=10)}))
