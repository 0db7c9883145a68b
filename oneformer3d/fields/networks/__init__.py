"""Encodings, hash grids and heads: position to density, colour and features."""
