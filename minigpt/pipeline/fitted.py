"""Outcome of a fit in the report of the build that it was made for."""

from __future__ import annotations

from dataclasses import replace

from minigpt import report
from minigpt.fits import Fit
from minigpt.pipeline.finish import register_and_slim
from minigpt.pipeline.options import BuildOptions
from minigpt.pipeline.run import build_key, resolve_run
from minigpt.progress import SILENT, Reporter
from minigpt.report.page import FILE_NAME as PAGE
from minigpt.report.page import write_page
from minigpt.results import BuildReport


def keep_fit(name: str, options: BuildOptions, fit: Fit, reporter: Reporter = SILENT) -> BuildReport:
    """Write a fit and what came out into the report and the page of a finished build, and return the report.

    A build that holds the same fit already is left as it is, so that it can be read where it cannot be written.

    Args:
        name: name or file of the domain.
        options: the options that the build was made with.
        fit: the fit.
        reporter: told about progress.
    """
    run = resolve_run(name, options, reporter)
    workspace = run.workspace
    result = report.load(workspace.report)
    if result.fit == fit:
        return result
    result = replace(result, fit=fit)
    with workspace.locked():
        workspace.open_for(workspace.report.name)
        report.save(result, workspace.report)
        write_page(result, workspace.root / PAGE)
        workspace.seal(build_key(run))
        register_and_slim(workspace)
    return result
