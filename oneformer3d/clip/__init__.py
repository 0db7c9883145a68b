"""Features from CLIP: encoder, text and the store they are kept in."""
