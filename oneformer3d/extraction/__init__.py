"""Images to features in the store."""
