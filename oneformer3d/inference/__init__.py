"""Parts of the inferencer: thinning dense clouds, tiling large ones, writing the results."""
