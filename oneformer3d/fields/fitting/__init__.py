"""The loop that fits one scene."""
