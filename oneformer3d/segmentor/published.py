"""Type names of the published OneFormer3D settings.

Enters: the published ``model`` settings, as they are. Leaves: a ``OneFormer3D`` with what those
names imply: ScanNet and S3DIS voxelise from the smallest coordinate and add centred xyz to the
colours; ScanNet200 does neither; S3DIS has no superpoints, and instances of all its classes.
"""

from oneformer3d.registry import MODELS

from .oneformer3d import OneFormer3D
from .voxel_encoder import BackboneEncoder, SpConvUNetEncoder


@MODELS.register_module()
def ScanNetOneFormer3D(  # noqa: N802
    backbone: dict,
    decoder: dict,
    criterion: dict,
    in_channels: int,
    num_channels: int,
    voxel_size: float,
    num_classes: int,
    min_spatial_shape: int,
    query_thr: float = 0.5,
    train_cfg: dict | None = None,
    test_cfg: dict | None = None,
    data_preprocessor: dict | None = None,
    init_cfg: dict | None = None,
) -> OneFormer3D:
    """Segmentor of ScanNet: superpoints, superpoint queries, spconv U-Net."""
    encoder = _spconv_unet_encoder(
        backbone, in_channels, num_channels, voxel_size, min_spatial_shape
    )

    return OneFormer3D(
        encoder,
        decoder,
        criterion,
        query_thr=query_thr,
        train_cfg=train_cfg,
        data_preprocessor=data_preprocessor,
        init_cfg=init_cfg,
        **_class_settings(decoder, criterion, num_classes, test_cfg),
    )


@MODELS.register_module()
def ScanNet200OneFormer3D(  # noqa: N802
    backbone: dict,
    decoder: dict,
    criterion: dict,
    voxel_size: float,
    num_classes: int,
    query_thr: float = 0.5,
    train_cfg: dict | None = None,
    test_cfg: dict | None = None,
    data_preprocessor: dict | None = None,
    init_cfg: dict | None = None,
) -> OneFormer3D:
    """Segmentor of ScanNet200: as ScanNet's, but with Res16UNet34C on colours alone."""
    encoder = {'type': BackboneEncoder, 'backbone': backbone, 'voxel_size': voxel_size}

    return OneFormer3D(
        encoder,
        decoder,
        criterion,
        query_thr=query_thr,
        train_cfg=train_cfg,
        data_preprocessor=data_preprocessor,
        init_cfg=init_cfg,
        **_class_settings(decoder, criterion, num_classes, test_cfg),
    )


@MODELS.register_module()
def S3DISOneFormer3D(  # noqa: N802
    backbone: dict,
    decoder: dict,
    criterion: dict,
    in_channels: int,
    num_channels: int,
    voxel_size: float,
    num_classes: int,
    min_spatial_shape: int,
    train_cfg: dict | None = None,
    test_cfg: dict | None = None,
    data_preprocessor: dict | None = None,
    init_cfg: dict | None = None,
) -> OneFormer3D:
    """Segmentor of S3DIS: voxels instead of superpoints, learned queries, spconv U-Net."""
    encoder = _spconv_unet_encoder(
        backbone, in_channels, num_channels, voxel_size, min_spatial_shape
    )

    return OneFormer3D(
        encoder,
        decoder,
        criterion,
        use_superpoints=False,
        train_cfg=train_cfg,
        data_preprocessor=data_preprocessor,
        init_cfg=init_cfg,
        **_class_settings(decoder, criterion, num_classes, test_cfg),
    )


def _spconv_unet_encoder(
    backbone: dict, in_channels: int, num_channels: int, voxel_size: float, min_spatial_shape: int
) -> dict:
    return {
        'type': SpConvUNetEncoder,
        'backbone': backbone,
        'in_channels': in_channels,
        'num_channels': num_channels,
        'voxel_size': voxel_size,
        'min_spatial_shape': min_spatial_shape,
    }


def _class_settings(
    decoder: dict, criterion: dict, num_classes: int, test_cfg: dict | None
) -> dict:
    """Class arguments of the segmentor, which the published settings spread over other parts."""
    num_semantic_classes = criterion['num_semantic_classes']
    if num_classes != decoder['num_instance_classes']:
        raise ValueError(
            f'num_classes={num_classes} but the decoder has num_instance_classes='
            f'{decoder["num_instance_classes"]}'
        )

    # the published settings name stuff and thing classes in test_cfg
    test_cfg = dict(test_cfg or {})
    stuff = tuple(test_cfg.pop('stuff_classes', test_cfg.pop('stuff_cls', (0, 1))))
    things = tuple(c for c in range(num_semantic_classes) if c not in stuff)
    if tuple(test_cfg.pop('thing_cls', things)) != things:
        raise ValueError('test_cfg: thing_cls must be the classes that are not in stuff_cls')
    if test_cfg.pop('num_sem_cls', num_semantic_classes) != num_semantic_classes:
        raise ValueError('test_cfg: num_sem_cls differs from the criterion')

    return {
        'num_semantic_classes': num_semantic_classes,
        'stuff_classes': stuff,
        'test_cfg': test_cfg,
    }
