# the published S3DIS model on areas 1–4 and 6, tested on area 5; its checkpoint loads strictly
_base_ = [
    './_base_/datasets/s3dis.py',
    './_base_/models/oneformer3d_s3dis.py',
    './_base_/schedules/poly_512e.py',
]
