"""Tests of minigpt.workers."""
