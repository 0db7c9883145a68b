"""Pictures and labelled clouds, drawn and written without a display."""
