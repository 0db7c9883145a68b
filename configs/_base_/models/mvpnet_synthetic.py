# a small MVPNet for rooms at 5 cm: ResNet-18 pictures of 320×240, 64 lifted channels
num_semantic_classes = 16
image_net = dict(backbone='resnet18', channels=64, use_amp=True)
# a whole room, not a column of 1.5 m: larger balls than the published 0.1, 0.2 and 0.4 m
point_processor = dict(npoint=(1024, 256, 64), radius=(0.2, 0.4, 0.8), nsample=32)
model = dict(
    type='MVPNet',
    data_preprocessor=dict(type='Det3DDataPreprocessor_'),
    num_classes=num_semantic_classes,
    image_net=image_net,
    aggregator=dict(type='attention'),
    point_processor=point_processor,
    point_inputs=('color', 'height'),
    max_views=6,
    num_train_points=8192,
    points_per_pass=8192,
)
# what --tta puts around it
tta_model = dict(type='MVPNetTTA')
