"""After importing the package every type that a config may name is found."""

import oneformer3d  # noqa: F401
from oneformer3d import registry

# What configs and checkpoints of earlier versions name: these names stay.
NAMES = {
    'DATASETS': ['IndoorSegDataset'],
    'DATA_SAMPLERS': ['ResumableSampler'],
    'HOOKS': [
        'IterationHook',
        'KeepingCheckpointHook',
        'SafeCheckpointHook',
        'SegVisualizationHook',
        'SharedMemoryHook',
        'StopHook',
    ],
    'METRICS': ['UnifiedSegMetric'],
    'MODELS': [
        'BackboneEncoder',
        'BiFusionEncoder',
        'ClipConsCriterion',
        'ClipPyramid',
        'Det3DDataPreprocessor_',
        'FPNPyramid',
        'FeatureLiftingSegmentation',
        'InstanceCriterion',
        'LiftingEncoder',
        'MVPNet',
        'MVPNet2D',
        'MapPyramid',
        'OneFormer3D',
        'PointSemanticCriterion',
        'QueryDecoder',
        'Res16UNet34C',
        'S3DISOneFormer3D',
        'S3DISSemanticCriterion',
        'S3DISUnifiedCriterion',
        'STMQueryDecoder',
        'ScanNet200OneFormer3D',
        'ScanNetOneFormer3D',
        'ScanNetQueryDecoder',
        'ScanNetSemanticCriterion',
        'ScanNetUnifiedCriterion',
        'SceneDataPreprocessor',
        'SpConvUNet',
        'SpConvUNetEncoder',
        'TinySA2D',
        'TinySAModule',
        'TinySANeck',
        'UnifiedCriterion',
        'ViewSegmentation',
    ],
    'OPTIM_WRAPPERS': [
        'CPUAmpOptimWrapper',
    ],
    'TASK_UTILS': [
        'HungarianMatcher',
        'MaskBCECost',
        'MaskDiceCost',
        'QueryClassificationCost',
        'SparseMatcher',
    ],
    'TRANSFORMS': [
        'ElasticDistortion',
        'LoadPosedViews',
        'LoadSceneAnnotations',
        'LoadScenePoints',
        'LoadViewImages',
        'NormalizeColor',
        'PackSceneInputs',
        'PackViewImages',
        'RandomFlipBEV',
        'RandomRotScaleTrans',
        'SamplePoints',
    ],
}


def test_registered_names():
    for name, types in NAMES.items():
        missing = [type_ for type_ in types if getattr(registry, name).get(type_) is None]
        assert not missing, f'{name} lacks {missing}'
