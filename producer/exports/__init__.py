"""Datasets from finished batches: which rows, their captions and splits, the formats, and where they go."""
