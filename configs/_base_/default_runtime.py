custom_imports = dict(imports=['oneformer3d'], allow_failed_imports=False)
default_scope = 'mmdet3d'

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    # losses that warm up read it from the model
    iteration=dict(type='IterationHook'),
    # written whole or not at all, so a killed run keeps its last good checkpoint
    checkpoint=dict(
        type='KeepingCheckpointHook',
        interval=1,
        max_keep_ckpts=2,
        backend_args=dict(backend='atomic'),
        # the best epoch is kept beside the latest; more is better, of every metric there is
        save_best='instance/AP50',
        rule='greater',
    ),
)
custom_hooks = [
    dict(type='SafeCheckpointHook'),
    # SIGTERM writes a checkpoint within the epoch
    dict(type='StopHook'),
    dict(type='SharedMemoryHook'),
]

log_processor = dict(type='LogProcessor', window_size=50, by_epoch=True)
env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)
visualizer = dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')])

randomness = dict(seed=0)
log_level = 'INFO'
load_from = None
resume = False
