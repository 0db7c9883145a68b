"""Masks × text: one vector per mask, so that any words find their masks.

Enters: masks of a scan's points, text-space maps of its images, texts as unit vectors. Leaves: a
``SceneIndex`` that is made once per scan and kept on disk, and for each text how well each mask
fits it, or that nothing does. Letters: N points, K masks, T texts, D width of
the text space, V views.
"""
