# the demo's model with the classes of rooms as they are scanned
_base_ = ['./oneformer3d_synthetic.py']

num_semantic_classes = 23
num_instance_classes = 20
model = dict(
    decoder=dict(
        num_instance_classes=num_instance_classes, num_semantic_classes=num_semantic_classes
    ),
    criterion=dict(
        num_semantic_classes=num_semantic_classes,
        sem_criterion=dict(ignore_index=num_semantic_classes),
        inst_criterion=dict(num_classes=num_instance_classes),
    ),
    num_semantic_classes=num_semantic_classes,
)
