# rooms with CLIP features beside the points' own, and queries that attend to the objects of single
# views: superpoints as each view shows them, or 2D masks with --cfg-options
# train_dataloader.dataset.pipeline.LoadPosedViews.object_suffix=.instance.png and so on; first:
# python tools/extract_clip_feat.py --data_root data/synthetic --output_dir data/synthetic/clip_feat
_base_ = ['./bifusion_late_synthetic.py', './_base_/models/object_tokens.py']

model = dict(decoder=dict(_base_.object_tokens, clip_store=_base_.clip_store))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=_base_.token_rates))
