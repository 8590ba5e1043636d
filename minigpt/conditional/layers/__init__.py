"""Conditional feed-forward layers for training and inference, one module for each kind."""
