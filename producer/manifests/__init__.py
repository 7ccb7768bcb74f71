"""Manifests: what a user hands in, read row by row, whatever its format and wherever it lies."""
