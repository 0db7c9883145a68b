# bifusion_synthetic.py with CLIP as a part of the model: the images are loaded, and a store is filled
# with their features on first use, so nothing is extracted before. Another tower:
# --cfg-options model.encoder.clip.weights=FILE model.decoder.clip_channels=ITS_WIDTH
_base_ = ['./bifusion_synthetic.py']

train_views = dict(_base_.train_views, clip_store=None)
test_views = dict(_base_.test_views, clip_store=None)
train_pipeline = [*_base_.load_scene, train_views, *_base_.train_steps]
test_pipeline = [*_base_.load_scene, test_views, *_base_.test_steps]
tta_pipeline = [*test_pipeline[:-1], _base_.mirror]

train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

# of its own: images are squashed otherwise than extraction does without --exact-resize
clip_store = f'{_base_.data_root}/clip_online'
clip = dict(model='ViT-B-16', weights='laion2b_s34b_b88k')
model = dict(
    encoder=dict(offline_clip_feat=False, clip=clip, clip_store=clip_store),
    decoder=dict(clip_store=clip_store),
)
