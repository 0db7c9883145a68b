"""Rooms as they are scanned."""
