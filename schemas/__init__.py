"""The contracts, pure: no I/O."""
