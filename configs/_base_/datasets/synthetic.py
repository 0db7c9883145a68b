# procedural rooms: python tools/create_data.py synthetic --out data/synthetic
_base_ = ['./indoor.py']

data_root = 'data/synthetic'
class_table = 'synthetic'

move = dict(
    type='RandomRotScaleTrans',
    # the rooms are aligned with the axes; full turns need a longer schedule than the demo's
    rot_range=(-0.2, 0.2),
    scale_ratio_range=(0.9, 1.1),
)
train_steps = [_base_.flip, move, _base_.normalize, _base_.pack]
test_steps = [_base_.normalize, _base_.pack]
train_pipeline = [*_base_.load_scene, *train_steps]
test_pipeline = [*_base_.load_scene, *test_steps]
tta_pipeline = [*test_pipeline[:-1], _base_.mirror]

rooms = dict(data_root=data_root, class_table=class_table)
train_dataloader = dict(dataset=dict(rooms, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(rooms, pipeline=test_pipeline))
test_dataloader = val_dataloader

# rooms have one point per 5 cm: the smallest objects are some 20 points
val_evaluator = dict(min_region_size=10)
test_evaluator = val_evaluator
