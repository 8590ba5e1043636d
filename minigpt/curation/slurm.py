"""Job arrays of Slurm, submitted by datatrove and watched until they end."""

from __future__ import annotations

import subprocess

from datatrove.executor import SlurmPipelineExecutor


class SlurmJobs(SlurmPipelineExecutor):  # type: ignore[misc]
    """Datatrove's executor without its extra job for statistics, which also tells whether its jobs have ended."""

    def launch_merge_stats(self) -> None:
        """Submit no job that adds up statistics: the tasks keep none."""

    def is_running(self) -> bool:
        """Return whether Slurm still lists the last job array."""
        if self.job_id in (None, -1):
            return False
        listed = subprocess.run(
            ["squeue", "--noheader", "--jobs", str(self.job_id)], capture_output=True, text=True, check=False
        )
        return listed.returncode == 0 and bool(listed.stdout.strip())
