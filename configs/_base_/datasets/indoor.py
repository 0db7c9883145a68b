# What the datasets have in common. A dataset names its folder, class table and steps; where views
# are loaded, that is between load_scene and the rest.
load_scene = [dict(type='LoadScenePoints'), dict(type='LoadSceneAnnotations')]
flip = dict(type='RandomFlipBEV', prob_x=0.5, prob_y=0.5)
normalize = dict(type='NormalizeColor', mean=127.5, std=127.5)
pack = dict(type='PackSceneInputs')

# views of test-time augmentation: mirrored, and for models that train with full turns turned
mirrored = [dict(type='RandomFlipBEV', prob_x=x, prob_y=y) for x in (0, 1) for y in (0, 1)]
turned = [
    dict(type='RandomRotScaleTrans', rot_range=(angle, angle), scale_ratio_range=(1.0, 1.0))
    for angle in (0.0, 1.57079633)
]
mirror = dict(type='TestTimeAug', transforms=[mirrored, [pack]])
mirror_and_turn = dict(type='TestTimeAug', transforms=[mirrored, turned, [pack]])

train_dataloader = dict(
    batch_size=1,
    num_workers=1,
    persistent_workers=False,
    sampler=dict(type='ResumableSampler', shuffle=True),
    worker_init_fn=dict(type='seed_worker_from_torch'),
    dataset=dict(type='IndoorSegDataset', ann_file='oneformer3d_infos_train.json'),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=1,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    worker_init_fn=dict(type='seed_worker_from_torch'),
    dataset=dict(type='IndoorSegDataset', ann_file='oneformer3d_infos_val.json', test_mode=True),
)
test_dataloader = val_dataloader

val_evaluator = dict(type='UnifiedSegMetric')
test_evaluator = val_evaluator
