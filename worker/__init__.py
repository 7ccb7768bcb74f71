"""The data plane: pins a pair on a device, renders packs, finishes images."""
