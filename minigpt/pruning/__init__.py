"""Pruning: slice layers, neurons, KV groups and vocabulary to a plan, and repair the result by least squares."""
