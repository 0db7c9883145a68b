"""Points and views of a fitted field: labels, text, pictures, measures.

Enters: a ``FittedField``, and points, phrases or cameras. Leaves: one row per point (``query``, the
file to read first), a labelled scan (``segment``), files (``answers``, ``pictures``), numbers
(``evaluate``, ``evaluate_text``, ``baseline``) and all of these for one fit (``report``).
"""
