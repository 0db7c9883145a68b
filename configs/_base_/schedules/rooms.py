# 5000 steps, counted one by one: a run can be stopped and resumed at any of them. Kept, scored and
# shipped are weights averaged over the last thousand or so, for single steps differ by several points
_base_ = ['../default_runtime.py']
max_iters = 5000
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    clip_grad=dict(max_norm=10, norm_type=2),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, begin=0, end=100, by_epoch=False),
    dict(type='PolyLR', begin=100, end=max_iters, power=0.9, by_epoch=False),
]

train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=max_iters)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

default_hooks = dict(
    checkpoint=dict(by_epoch=False, interval=250, max_keep_ckpts=2, save_last=True),
)
custom_hooks = [
    dict(type='SafeCheckpointHook'),
    dict(type='StopHook'),
    dict(type='SharedMemoryHook'),
    dict(type='EMAHook', ema_type='ExponentialMovingAverage', momentum=1e-3, update_buffers=True),
]
log_processor = dict(by_epoch=False)
auto_scale_lr = dict(enable=False, base_batch_size=1)
