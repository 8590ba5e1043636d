"""Planning: decide how much of each axis is removed, by measured sensitivity, before any weight is changed."""

from minigpt.planning.allocate import Limits, allocate
from minigpt.planning.sensitivity import LEFT_AFTER, Curve, Healing, Sensitivity, shipped
from minigpt.planning.target import Target

__all__ = ["LEFT_AFTER", "Curve", "Healing", "Limits", "Sensitivity", "Target", "allocate", "shipped"]
