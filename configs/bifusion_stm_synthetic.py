# rooms with CLIP features fused into the points and read again by the queries; features as for
# bifusion_synthetic.py, which in short runs is the better model (docs/results.md)
_base_ = ['./bifusion_late_synthetic.py', './_base_/models/stm_decoder.py']

pyramid = dict(_base_.stm_decoder.pyramid, clip_store=_base_.clip_store)
model = dict(decoder=dict(_base_.stm_decoder, pyramid=pyramid))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=_base_.stm_rates))
