# fusion alone, for the cells of bifusion.yaml: each of its further parts is a cell of its own
_base_ = ['../bifusion_residual_synthetic.py']

clip_store = 'work_dirs/ablations/clip/features'
model = dict(encoder=dict(clip_store=clip_store, use_tiny_sa_3d=False, clip_cons=None))
train_pipeline = _base_.train_pipeline
train_pipeline[2].clip_store = clip_store
test_pipeline = _base_.test_pipeline
test_pipeline[2].clip_store = clip_store
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
