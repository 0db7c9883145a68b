_base_ = [
    './_base_/datasets/s3dis.py',
    './_base_/models/oneformer3d_s3dis.py',
    './_base_/schedules/poly_512e.py',
]
