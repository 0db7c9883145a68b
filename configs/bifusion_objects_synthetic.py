# rooms with CLIP features fused into the points, and queries that attend to the objects of single
# views: superpoints as each view shows them, or 2D masks with
# --cfg-options train_dataloader.dataset.pipeline.LoadPosedViews.object_suffix=.instance.png and so on
_base_ = ['./bifusion_synthetic.py', './_base_/models/object_tokens.py']

model = dict(decoder=dict(_base_.object_tokens, clip_store=_base_.clip_store))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=_base_.token_rates))
