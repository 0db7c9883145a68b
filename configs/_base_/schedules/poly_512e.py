# the published schedule: AdamW, polynomial decay over 512 epochs
_base_ = ['../default_runtime.py']
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.05),
    clip_grad=dict(max_norm=10, norm_type=2),
)
param_scheduler = dict(type='PolyLR', begin=0, end=512, power=0.9)

train_cfg = dict(
    type='EpochBasedTrainLoop',
    max_epochs=512,
    dynamic_intervals=[(1, 16), (512 - 16, 1)],
)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

default_hooks = dict(checkpoint=dict(interval=16, max_keep_ckpts=16))
custom_hooks = [
    dict(type='SafeCheckpointHook'),
    dict(type='StopHook'),
    dict(type='SharedMemoryHook'),
    dict(type='EmptyCacheHook', after_iter=True),
]
# one GPU, four scenes: what the learning rate above was chosen for
auto_scale_lr = dict(enable=False, base_batch_size=4)
