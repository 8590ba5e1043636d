"""The build: it calls corpus, planning, pruning, healing, evaluation and report in their order, and resumes."""

from minigpt.pipeline.build import build_specialists, plan_specialists
from minigpt.pipeline.options import BuildOptions
from minigpt.pipeline.summary import PlanSummary

__all__ = ["BuildOptions", "PlanSummary", "build_specialists", "plan_specialists"]
