"""Feed-forward layers of which a token needs a part: trees of neurons, leaves, sparse activations and thresholds."""
