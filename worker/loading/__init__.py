"""A pair from its files onto a device: weights, LoRAs, learned tokens, device options, offloading."""
