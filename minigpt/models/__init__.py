"""Finished models: find them by name, keep them in the catalog, measure them, time them, let them write."""
