"""Planning: how much of each axis goes, from measured sensitivity, before any weight is touched."""

from minigpt.plan.allocate import Limits, allocate
from minigpt.plan.sensitivity import AXES, LEFT_AFTER, Curve, Healing, Sensitivity, shipped
from minigpt.plan.target import Target

__all__ = ["AXES", "LEFT_AFTER", "Curve", "Healing", "Limits", "Sensitivity", "Target", "allocate", "shipped"]
