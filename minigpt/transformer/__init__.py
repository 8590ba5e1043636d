"""Transformer models: architecture table, packed text, activation statistics, logits, 4-bit weights and sizes."""
