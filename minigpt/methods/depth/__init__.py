"""Which layers to remove: by similarity of hidden states, by position, by measured loss, or by merging neighbors."""
