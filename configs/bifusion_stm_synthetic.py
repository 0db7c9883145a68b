# rooms with CLIP features fused into the points and sampled by the queries; features as for
# bifusion_synthetic.py
_base_ = [
    './_base_/datasets/synthetic.py',
    './_base_/models/bifusion_stm_synthetic.py',
    './_base_/schedules/demo.py',
]
# LoadPosedViews stands third in both pipelines, e.g. to test with the pixels hidden:
#   --cfg-options test_dataloader.dataset.pipeline.2.hide=pixels
clip_store = 'data/synthetic/clip_feat'

train_pipeline = [
    dict(type='LoadScenePoints'),
    dict(type='LoadSceneAnnotations'),
    dict(
        type='LoadPosedViews',
        store=clip_store,
        num_views=12,
        select='random',
        view_dropout=0.1,
        image_dropout=0.2,
    ),
    *_base_.train_pipeline[2:],
]
test_pipeline = [
    dict(type='LoadScenePoints'),
    dict(type='LoadSceneAnnotations'),
    dict(type='LoadPosedViews', store=clip_store, num_views=None),
    *_base_.test_pipeline[2:],
]

# persistent workers keep which points the views see
train_dataloader = dict(persistent_workers=True, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(persistent_workers=True, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

# mode concat alone, as its rows in docs/results.md were measured; bifusion_synthetic.py goes further
model = dict(
    encoder=dict(mode='concat', use_tiny_sa_3d=False, clip_cons=None),
    decoder=dict(side_channels=96),
)
# what starts at zero; at the base rate it would need half of a short run to count
optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys={
            'encoder.out.': dict(lr_mult=10),
            'view_gates': dict(lr_mult=10),
            'side': dict(lr_mult=10),
        }
    )
)
