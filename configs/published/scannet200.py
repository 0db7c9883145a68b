# the published settings of the ScanNet200 model, word for word; oneformer3d_scannet200.py builds the
# same model from the parts' own names
_base_ = ['./scannet.py']

model = dict(
    _delete_=True,
    type='ScanNet200OneFormer3D',
    data_preprocessor=_base_.model.data_preprocessor,
    voxel_size=0.02,
    num_classes=198,
    query_thr=0.5,
    backbone=dict(
        type='Res16UNet34C',
        in_channels=3,
        out_channels=96,
        config=dict(dilations=[1, 1, 1, 1], conv1_kernel_size=5, bn_momentum=0.02),
    ),
    decoder=dict(
        _base_.model.decoder, num_instance_classes=198, num_semantic_classes=200, in_channels=96
    ),
    criterion=dict(
        _base_.model.criterion,
        num_semantic_classes=200,
        sem_criterion=dict(_base_.model.criterion.sem_criterion, ignore_index=200, loss_weight=0.5),
        inst_criterion=dict(_base_.model.criterion.inst_criterion, num_classes=198),
    ),
    train_cfg=dict(),
    test_cfg=_base_.model.test_cfg,
)
