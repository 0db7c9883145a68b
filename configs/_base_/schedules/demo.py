# some 1150 room passes: about ten minutes on two cores
_base_ = ['../default_runtime.py']
max_epochs = 48
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    clip_grad=dict(max_norm=10, norm_type=2),
)
param_scheduler = dict(
    type='PolyLR', begin=0, end=max_epochs, power=0.9, convert_to_iter_based=True
)

train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=24)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

default_hooks = dict(
    logger=dict(interval=24),
    checkpoint=dict(interval=6, max_keep_ckpts=2, save_last=True),
)
auto_scale_lr = dict(enable=False, base_batch_size=1)
