"""Scenes on disk, and how they become samples.

To be read in this order:

``infos`` and ``scenes``           what a data root holds: its index, and ``Scene`` and ``Frame``
``scene_files``, ``class_tables``  points and labels of a scene; which id means what
``samples/``                       the dataset and its transforms: a scene → a training sample
``layouts/``                       posed frames as their authors ship them, told by their files
``readers``, ``posed_rgbd``        clouds and posed frames of any origin, before they are converted
``fuse_rgbd``, ``upright``         posed frames → a cloud; which way is up
``local_surfaces``, ``superpoints``  planes around points; patches that masks are made of
``convert/``                       datasets as downloaded → a data root
``synthetic/``                     furnished rooms, rendered and scanned → a data root
``doctor/``                        which convention a folder of frames is in
"""
