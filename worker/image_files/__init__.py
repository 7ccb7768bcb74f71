"""From pixels to a stored file."""
