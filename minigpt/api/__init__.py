"""Python API: the functions behind `minigpt.build`, `plan`, `prune`, `heal`, `evaluate`, `export` and `load`."""
