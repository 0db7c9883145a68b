"""Arrays to pictures, without a display."""
