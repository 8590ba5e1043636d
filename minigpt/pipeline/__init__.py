"""The build: call corpus, planning, pruning, healing, evaluation and report in order, and resume where it stopped."""

from minigpt.pipeline.build import build_specialists, plan_specialists
from minigpt.pipeline.options import BuildOptions
from minigpt.pipeline.summary import PlanSummary

__all__ = ["BuildOptions", "PlanSummary", "build_specialists", "plan_specialists"]
