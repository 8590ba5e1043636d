"""Finished models: finding them by name, the catalog, evaluation, speed, and text generation."""
