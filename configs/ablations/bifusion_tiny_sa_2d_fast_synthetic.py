# for the cell tiny_sa_2d of bifusion.yaml: attention within maps instead of among points, at the rate
# of the rest of the image branch (a key with dots cannot stand in the table)
_base_ = ['../bifusion_late_synthetic.py']

model = dict(encoder=dict(use_tiny_sa_2d=True, use_tiny_sa_3d=False))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'image_branch.head.neck': dict(lr_mult=3)}))
