"""Programs that run tasks: processes that may be killed, and a stand-in for Slurm that runs jobs on this machine."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import ModuleType

import pytest

from minigpt.curation import curate, engine
from minigpt.curation.plan import Wishes
from minigpt.domain.config import load_domain
from minigpt.errors import ConfigError, MiniGPTError
from minigpt.progress import SILENT
from tests.support.commands import run
from tests.support.shelves import domain_file, shelf

WISHES = Wishes(shard_bytes=10**6)
# Programs of Slurm: a job array runs at once, one task after the other, and squeue lists nothing afterwards.
SBATCH = """#!{python}
import os, re, subprocess, sys
script = sys.argv[-1]
last = int(re.search(r"--array=0-(\\d+)", open(script).read())[1])
offset = next(part.rpartition("=")[2] for part in sys.argv if part.startswith("--export"))
for task in range(last + 1):
    names = {{"SLURM_ARRAY_TASK_ID": str(task), "RUN_OFFSET": offset, "SLURM_NODELIST": "here", "SLURM_JOB_ID": "7"}}
    if os.environ.get("FAILING") != str(task):
        subprocess.run(["bash", script], env={{**os.environ, **names}}, stdout=sys.stderr, check=False)
print("Submitted batch job 7")
"""
SRUN = '#!/bin/bash\nwhile [[ "$1" == -* ]]; do [[ "$1" == -n ]] && shift; shift; done\nexec "$@"\n'


class Suicide:
    """A step whose task 1 kills its process, unless a file is there."""

    def __init__(self, flag: Path) -> None:
        self.flag = flag
        self.name = "suicide"

    def __call__(self, _data: object, rank: int, _tasks: int) -> None:
        if rank == 1 and not self.flag.exists():
            self.flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        (self.flag.parent / f"done-{rank}").write_text(str(os.getpid()))


def test_the_task_of_a_killed_process_is_not_done_and_is_done_the_next_time(tmp_path: Path) -> None:
    step = Suicide(tmp_path / "killed")
    with (
        pytest.raises(MiniGPTError, match="worker was killed in the stage 'x'"),
        engine.local(tmp_path / "log", 2) as two,
    ):
        two.run("x", step, 3, SILENT)
    assert not (tmp_path / "log" / "x" / "completions" / "00001").exists()
    with engine.local(tmp_path / "log", 2) as two:
        two.run("x", step, 3, SILENT)
    assert {path.name for path in tmp_path.glob("done-*")} == {"done-0", "done-1", "done-2"}
    (tmp_path / "done-1").unlink()
    with engine.local(tmp_path / "log", 1) as one:
        one.run("x", step, 3, SILENT)
    assert not (tmp_path / "done-1").exists()


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    texts = {
        "sbatch": SBATCH.format(python=sys.executable),
        "srun": SRUN,
        "squeue": "#!/bin/bash\n",
        "scontrol": "#!/bin/bash\necho here\n",
    }
    for name, text in texts.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.setattr(engine, "POLL_SECONDS", 0.01)


@pytest.mark.slow
def test_slurm_gives_the_same_result(tmp_path: Path, slurm: None, monkeypatch: pytest.MonkeyPatch) -> None:
    domain = load_domain(str(domain_file(shelf(tmp_path / "texts", 150), tmp_path / "x.yaml")))
    options = {"partition": "cpu", "time": "01:00:00"}
    monkeypatch.setenv("FAILING", "0")
    with pytest.raises(MiniGPTError, match="1 of 1 tasks of the stage 'read' ended without a result") as caught:
        curate(domain, tmp_path / "slurm", wishes=WISHES, executor="slurm", workers=4, cluster=options)
    assert "run the same command again" in str(caught.value)
    monkeypatch.delenv("FAILING")
    curate(domain, tmp_path / "slurm", wishes=WISHES, executor="slurm", workers=4, cluster=options)
    curate(domain, tmp_path / "here", wishes=WISHES)
    names = sorted(path.relative_to(tmp_path / "here") for path in (tmp_path / "here").rglob("*") if path.is_file())
    assert len(names) == 5
    assert all((tmp_path / "slurm" / name).read_bytes() == (tmp_path / "here" / name).read_bytes() for name in names)


def test_what_a_cluster_needs_is_said(tmp_path: Path, slurm: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="--cluster time="):
        engine.slurm(tmp_path, 2, {"partition": "cpu"})
    jobs = engine.slurm(tmp_path, 2, {"partition": "cpu", "time": "1:00:00", "colour": "red"})
    with pytest.raises(ConfigError, match="colour"):
        jobs.run("x", Suicide(tmp_path / "flag"), 1, SILENT)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match="no `sbatch` here"):
        engine.slurm(tmp_path, 2, {})
    monkeypatch.setattr(engine, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match='pip install "ray'):
        engine.ray(tmp_path, 2, {})


def test_a_cluster_that_takes_no_jobs_is_said(tmp_path: Path, slurm: None) -> None:
    (tmp_path / "programs" / "sbatch").write_text("#!/bin/bash\nexit 1\n")
    jobs = engine.slurm(tmp_path, 2, {"partition": "cpu", "time": "1:00:00"})
    with pytest.raises(MiniGPTError, match="'x' could not be started"):
        jobs.run("x", Suicide(tmp_path / "flag"), 1, SILENT)


def test_options_of_clusters_are_read_and_checked(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    base = ("corpus", "curate", str(tmp_path / "texts"), "-o", str(tmp_path / "out"))
    wrong = run(*base, "--executor", "slurm", "--cluster", "partition")
    assert wrong.exit_code == 2 and "NAME=VALUE" in wrong.stderr
    domain = domain_file(shelf(tmp_path / "shelf", 60), tmp_path / "x.yaml")
    local = run("corpus", "curate", str(domain), "-o", str(tmp_path / "other"), "--cluster", "a=1")
    assert local.exit_code == 1 and "--executor slurm or ray" in local.stderr


def test_ray_gets_the_tasks_and_the_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray itself is not installed here: a stand-in connects, and the executor's tasks run in this process."""
    from datatrove.executor import RayPipelineExecutor

    connected: list[dict] = []
    library = ModuleType("ray")
    library.init = lambda **options: connected.append(options)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ray", library)
    monkeypatch.setattr(engine, "find_spec", lambda name: name)
    monkeypatch.setattr(engine, "POLL_SECONDS", 0.01)

    def ranks(executor: RayPipelineExecutor) -> None:
        assert executor.workers == 3 and executor.mem_per_cpu_gb == 4
        for rank in executor.get_incomplete_ranks():
            if rank or (tmp_path / "again").exists():
                executor._run_for_rank(rank, 1)

    monkeypatch.setattr(RayPipelineExecutor, "run", ranks)
    step = Suicide(tmp_path / "killed")
    step.flag.touch()
    cluster = engine.ray(tmp_path / "log", 3, {"address": "auto", "mem_per_cpu_gb": 4})
    with pytest.raises(MiniGPTError, match="1 of 4 tasks of the stage 'x'"):
        cluster.run("x", step, 4, SILENT)
    (tmp_path / "again").touch()
    cluster.run("x", step, 4, SILENT)
    assert len(list(tmp_path.glob("done-*"))) == 4
    assert connected == [{"address": "auto", "ignore_reinit_error": True, "log_to_driver": False}]
