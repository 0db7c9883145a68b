# the ScanNet200 model: ScanNet's with more classes, on the colours of a Res16UNet34C; the published
# checkpoint loads strictly (its settings: ../../published/)
_base_ = ['./oneformer3d_scannet.py']

num_semantic_classes = 200
num_instance_classes = 198
num_channels = 96
model = dict(
    encoder=dict(
        _delete_=True,
        type='BackboneEncoder',
        backbone=dict(
            type='Res16UNet34C',
            in_channels=3,
            out_channels=num_channels,
            config=dict(dilations=[1, 1, 1, 1], conv1_kernel_size=5, bn_momentum=0.02),
        ),
        voxel_size=0.02,
        random_grid_start=True,
    ),
    decoder=dict(
        num_instance_classes=num_instance_classes,
        num_semantic_classes=num_semantic_classes,
        in_channels=num_channels,
    ),
    criterion=dict(
        num_semantic_classes=num_semantic_classes,
        sem_criterion=dict(ignore_index=num_semantic_classes, loss_weight=0.5),
        inst_criterion=dict(num_classes=num_instance_classes),
    ),
    num_semantic_classes=num_semantic_classes,
)
