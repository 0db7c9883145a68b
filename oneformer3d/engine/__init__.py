"""What drives training and testing beyond mmengine: launching, precision, checkpoints, pictures."""
