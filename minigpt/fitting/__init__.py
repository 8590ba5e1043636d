"""Fitting: turn bytes, tokens a second and memory of a device into a shape and a precision, and check what came out."""

from minigpt.fitting.constraints import Constraint, parse_constraint

__all__ = ["Constraint", "parse_constraint"]
