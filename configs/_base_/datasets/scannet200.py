# python tools/create_data.py scannet200 --root DOWNLOAD --out data/scannet200
# ScanNet with other labels and colours normalised by the published statistics;
# wall and floor are made the stuff classes 0 and 1 by the class table
_base_ = ['./scannet.py']

data_root = 'data/scannet200'
class_table = 'scannet200'

normalize = dict(
    type='NormalizeColor',
    mean=(0.4779 * 255, 0.4303 * 255, 0.3750 * 255),
    std=(0.2834 * 255, 0.2757 * 255, 0.2702 * 255),
)
train_steps = [_base_.flip, _base_.move, normalize, _base_.distort, _base_.pack]
test_steps = [normalize, _base_.pack]
train_pipeline = [*_base_.load_scene, *train_steps]
test_pipeline = [*_base_.load_scene, *test_steps]
tta_pipeline = [*test_pipeline[:-1], _base_.mirror_and_turn]

scans = dict(data_root=data_root, class_table=class_table)
train_dataloader = dict(dataset=dict(scans, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(scans, pipeline=test_pipeline))
test_dataloader = val_dataloader
