# the synthetic model whose queries also read the posed images
_base_ = ['./oneformer3d_synthetic.py', './stm_decoder.py']

model = dict(decoder=_base_.stm_decoder)
