# rooms as they are scanned:
# python tools/create_data.py synthetic --realism scanned --out data/rooms --num-train 200
_base_ = ['./indoor.py']

data_root = 'data/rooms'
class_table = 'rooms'

# what differs between scans of one room: extent, density, drift, colours, the turn
partial = [
    dict(type='CutAbove', heights=(1.4, 2.6), prob=0.5),
    dict(type='CropScene', num_points=16_000, prob=0.3),
    dict(type='DropPoints', ratio=(0.0, 0.25), num_holes=6, radius=(0.1, 0.35)),
]
uneven = [
    dict(type='SurfaceColorGain', scene=0.2, surface=0.1, gray=0.05),
    dict(type='DriftPoints', drift=(0.0, 0.02), wave=0.5, noise=(0.0, 0.006)),
]
move = dict(
    type='RandomRotScaleTrans', rot_range=(-3.14159265, 3.14159265), scale_ratio_range=(0.85, 1.15)
)
train_pipeline = [
    *_base_.load_scene,
    *partial,
    *uneven,
    _base_.flip,
    move,
    _base_.normalize,
    _base_.pack,
]
test_pipeline = [*_base_.load_scene, _base_.normalize, _base_.pack]
tta_pipeline = [*test_pipeline[:-1], _base_.mirror_and_turn]

rooms = dict(data_root=data_root, class_table=class_table)
# the schedule counts steps, not epochs
sampler = dict(type='InfiniteSampler', shuffle=True)
train_dataloader = dict(sampler=sampler, dataset=dict(rooms, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(rooms, pipeline=test_pipeline))
test_dataloader = val_dataloader

# one point per 5 cm: the smallest objects are some 12 points
val_evaluator = dict(min_region_size=10)
test_evaluator = val_evaluator
