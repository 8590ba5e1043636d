"""Planning: how much of each axis goes, from measured sensitivity, before any weight is touched."""

from minigpt.planning.allocate import Limits, allocate
from minigpt.planning.sensitivity import LEFT_AFTER, Curve, Healing, Sensitivity, shipped
from minigpt.planning.target import Target

__all__ = ["LEFT_AFTER", "Curve", "Healing", "Limits", "Sensitivity", "Target", "allocate", "shipped"]
