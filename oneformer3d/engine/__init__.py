"""What mmengine's runner needs beside the model: checkpoints, precision, processes."""
