# rooms with CLIP features beside the points' own, nothing else: what bifusion_synthetic.py had before
# its queries attended to the objects of single views; gains less (docs/results.md)
_base_ = [
    './_base_/datasets/synthetic_views.py',
    './_base_/models/bifusion_synthetic.py',
    './_base_/schedules/demo.py',
]

model = dict(encoder=dict(clip_store=_base_.clip_store))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=_base_.fusion_rates))
