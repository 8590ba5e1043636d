"""Domain definitions that come with minigpt (installed as `minigpt._domains`)."""
