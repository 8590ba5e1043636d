"""The model as minigpt reads it: families as data, packed text, activation statistics, logits, 4 bits, size."""
