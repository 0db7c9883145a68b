"""Rooms scanned as real ones are: noisy frames, fused by the path of prediction.

Enters: a seed. Leaves: ``generate_scanned_scene`` gives one labelled cloud with its frames.

``outline`` and ``layout`` furnish a room of any turn and outline with ``furniture``, ``kitchen``
and ``clutter``; ``finish`` colours it; ``walk`` and ``sensor`` record part of it; ``fuse`` makes
the cloud exactly as the inferencer makes it of a folder of frames; ``scan`` is all of that for one
seed.
"""
