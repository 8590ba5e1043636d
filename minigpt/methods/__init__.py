"""Every pruning method there is: the table, and what turns one of its rows into a plan."""

from minigpt.lazy import resolve
from minigpt.methods.table import METHODS, Method, method_named

__all__ = ["METHODS", "Method", "method_named", "resolve"]
