"""Compiled code and recorded graphs for the shapes that a device renders."""
