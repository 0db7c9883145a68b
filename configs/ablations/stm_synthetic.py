# for the cells of stm.yaml: the features that ablations share
_base_ = ['../stm_synthetic.py']

clip_store = 'work_dirs/ablations/clip/features'
model = dict(decoder=dict(pyramid=dict(clip_store=clip_store)))
train_pipeline = _base_.train_pipeline
train_pipeline[2].clip_store = clip_store
test_pipeline = _base_.test_pipeline
test_pipeline[2].clip_store = clip_store
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
