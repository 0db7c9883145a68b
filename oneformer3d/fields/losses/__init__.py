"""What is rendered against what was observed.

Enters: rendered values and targets by name. Leaves: scalars. ``total`` sums the terms of
``pixel_losses``, ``instance_losses`` and ``ray_losses``.
"""
