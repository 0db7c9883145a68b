# for the cells of stm.yaml: Bi-Fusion, and queries that read the same maps again
_base_ = ['../bifusion_stm_synthetic.py']

clip_store = 'work_dirs/ablations/clip/features'
model = dict(
    encoder=dict(clip_store=clip_store),
    decoder=dict(pyramid=dict(clip_store=clip_store)),
)
train_pipeline = _base_.train_pipeline
train_pipeline[2].clip_store = clip_store
test_pipeline = _base_.test_pipeline
test_pipeline[2].clip_store = clip_store
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
