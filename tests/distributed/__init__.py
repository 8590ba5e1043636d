"""Tests of minigpt.distributed."""
