# bifusion_late_synthetic.py with image features in the first convolution too, beside colour; the 3D
# encoder then runs a second time in each training step, for the rooms without their views
_base_ = ['./bifusion_late_synthetic.py']

model = dict(encoder=dict(fuse='both', early_channels=48))
