# the published schedule in 130 epochs, for what starts from a published checkpoint
_base_ = ['./poly_512e.py']

param_scheduler = dict(end=130)
train_cfg = dict(max_epochs=130, dynamic_intervals=[(1, 13), (130 - 13, 1)])
default_hooks = dict(checkpoint=dict(interval=13, max_keep_ckpts=10))
