# rooms with CLIP features fused into the points and sampled by the queries; features as for
# bifusion_synthetic.py
_base_ = [
    './_base_/datasets/synthetic_views.py',
    './_base_/models/bifusion_stm_synthetic.py',
    './_base_/schedules/demo.py',
]

# mode concat alone, as its rows in docs/results.md were measured; bifusion_synthetic.py goes further
model = dict(
    encoder=dict(mode='concat', use_tiny_sa_3d=False, clip_cons=None),
    decoder=dict(side_channels=96),
)
# what starts at zero; at the base rate it would need half of a short run to count
optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys={
            'encoder.out.': dict(lr_mult=10),
            'view_gates': dict(lr_mult=10),
            'side': dict(lr_mult=10),
        }
    )
)
