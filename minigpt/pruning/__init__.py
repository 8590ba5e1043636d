"""Cutting for real: slice layers, neurons, KV groups and vocabulary to a plan, and repair what is left."""
