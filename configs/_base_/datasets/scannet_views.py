# scannet with views: python tools/extract_clip_feat.py --data_root data/scannet
# --output_dir data/scannet/clip_feat (see its --help)
_base_ = ['./scannet.py']

clip_store = f'{_base_.data_root}/clip_feat'
train_views = dict(_base_.train_views, clip_store=clip_store)
test_views = dict(_base_.test_views, clip_store=clip_store)
train_pipeline = [*_base_.load_scene, train_views, *_base_.train_steps]
test_pipeline = [*_base_.load_scene, test_views, *_base_.test_steps]
tta_pipeline = [*test_pipeline[:-1], _base_.mirror_and_turn]

# persistent workers keep which points the views see
train_dataloader = dict(persistent_workers=True, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(persistent_workers=True, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
