"""Losses between rendered and observed values."""
