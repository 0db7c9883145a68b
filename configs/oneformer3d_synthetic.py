# points alone on procedural rooms: about ten minutes on two cores
_base_ = [
    './_base_/datasets/synthetic.py',
    './_base_/models/oneformer3d_synthetic.py',
    './_base_/schedules/demo.py',
]
