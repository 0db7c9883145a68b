"""Is a folder of posed frames what it says, and what to do where it is not.

To be read in this order: ``diagnose`` (the answer), ``records``, ``frames``, ``frame_images`` and
``tracks`` (what is looked at), ``compare`` (how well a reading fits), ``align`` (what frames would
allow), ``fit`` (both), ``changes`` and ``conventions`` (what can be wrong), ``search`` (which of it
is), ``colors`` (colour over depth), ``fix`` (the fixed copy), ``quick`` (a first look).
"""
