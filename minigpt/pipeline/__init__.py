"""The jobs behind the commands: build, plan, evaluate."""

from minigpt.models.evaluate import evaluate_ref
from minigpt.pipeline.build import PlanSummary, build, plan_only
from minigpt.pipeline.options import BuildOptions

__all__ = ["BuildOptions", "PlanSummary", "build", "evaluate_ref", "plan_only"]
