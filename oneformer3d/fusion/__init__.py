"""The Bi-Fusion encoder: frozen image features brought to the points."""
