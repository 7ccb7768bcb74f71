"""A host with its devices: the supervisor, and who may ask how they are."""
