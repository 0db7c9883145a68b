# the demo's schedule with Adam, for the two stages of MVPNet
_base_ = ['./demo.py']
optim_wrapper = dict(optimizer=dict(_delete_=True, type='Adam', lr=1e-3))
# classes of points only
default_hooks = dict(checkpoint=dict(save_best='semantic/mIoU'))
