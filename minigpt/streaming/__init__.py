"""Streaming: statistics, probes, repair and cut of a parent with one or two decoder layers in memory, the rest on disk.

The layers are visited in order, and all texts pass through a layer before the next one is read, so that each sweep over
the parent reads its weights once. Arithmetic and its order are those of a parent in memory: plan and weights are the
same to the bit.
"""
