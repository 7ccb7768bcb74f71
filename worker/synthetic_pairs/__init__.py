"""Pairs with random weights, where no real ones are."""
