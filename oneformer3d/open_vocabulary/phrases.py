"""Phrases for nothing in particular, LERF's (ICCV 2023); nothing heavy is imported with them."""

NEGATIVES = ('object', 'things', 'stuff', 'texture')
