# MVPNet for scans at 2 cm: ResNet-50 pictures, 256 lifted channels; points are drawn from the whole
# scan, not from columns of 1.5 m, hence more of them and larger balls than the published ones
num_semantic_classes = 20
image_net = dict(backbone='resnet50', weights=None, channels=256, use_amp=True)
point_processor = dict(npoint=(4096, 1024, 256), radius=(0.2, 0.4, 0.8), nsample=32)
model = dict(
    type='MVPNet',
    data_preprocessor=dict(type='Det3DDataPreprocessor_'),
    num_classes=num_semantic_classes,
    image_net=image_net,
    aggregator=dict(type='attention'),
    point_processor=point_processor,
    point_inputs=('color', 'height'),
    max_views=6,
    num_train_points=32768,
    points_per_pass=32768,
)
# what --tta puts around it
tta_model = dict(type='MVPNetTTA')
