"""Files read and written safely: atomic writes, outside names, images, clouds, checkpoints."""
