"""Depth pruning: remove layers by similarity of hidden states, by position, by measured loss, or by merging."""
