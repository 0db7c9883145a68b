"""OneFormer3D: one segmentor, its decoder, matching, criterion and post-processing."""
