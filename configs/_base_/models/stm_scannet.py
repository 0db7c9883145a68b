# the scannet model whose queries also read the posed images
_base_ = ['./oneformer3d_scannet.py', './stm_decoder.py']

pyramid = dict(_base_.stm_decoder.pyramid, channels=128, num_levels=4)
model = dict(decoder=dict(_base_.stm_decoder, pyramid=pyramid, num_view_points=16))
