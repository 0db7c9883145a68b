"""A scene in the browser: cloud, labels, objects and answers to texts.

Enters: a ``Segmentation``, a ``SceneIndex`` and what it answered. Leaves: one file that any browser
opens without a network, or a page on this machine's own address that answers. Letters: N points,
n drawn points, C classes, K objects, M masks, T texts, V images.
"""
