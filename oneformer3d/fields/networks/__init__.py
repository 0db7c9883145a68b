"""A position to density and hidden values, and by heads to colour, classes, features and language.

Enters: unit-box positions (…, 3). Leaves: see ``field``, the file to read first; then ``heads``,
and of the two kinds of trunk ``hash_field`` on ``hash_grid`` or ``mlp_field`` on ``encodings``.
"""
