"""The commands of the measurements on several GPUs: nothing is missing or there twice, and nothing shares a file."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minigpt.files import write_jsonl
from minigpt.methods import METHODS

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
DOMAINS = ("medical", "law", "finance")


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The script as a module."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import campaign

    yield campaign
    for name in ("campaign", "methods", "held"):
        sys.modules.pop(name, None)


def setup(module: Any, folder: Path, gpus: int = 4) -> Any:
    return module.Setup(domains={name: f"{name}.yaml" for name in DOMAINS}, folder=folder, gpus=gpus, seconds=500)


def option(command: list[str], name: str) -> str:
    return command[command.index(name) + 1]


def points(chains: list[list[list[str]]]) -> Counter[tuple[str, str, str]]:
    """Domain, method and size of every point that the commands measure."""
    return Counter(
        (option(command, "--domain").removesuffix(".yaml"), method, size)
        for chain in chains
        for command in chain
        for method in option(command, "--methods").split(",")
        for size in option(command, "--sizes").split(",")
    )


@pytest.mark.parametrize("gpus", [1, 3, 4])
def test_every_point_is_dealt_once_and_the_load_is_even(module: Any, tmp_path: Path, gpus: int) -> None:
    wanted = [(domain, method, size) for domain in DOMAINS for method in ("contextual", "greedy-blocks", "flap")
              for size in module.SIZES]  # fmt: skip
    hands = module.dealt(wanted, gpus, 400)
    assert Counter(point for hand in hands for point in hand) == Counter(wanted)
    assert hands == module.dealt(reversed(wanted), gpus, 400)
    loads = [sum(module.expected(method, 400) for _, method, _ in hand) for hand in hands]
    assert max(loads) < 2 * min(loads)
    chains = module.healing(setup(module, tmp_path, gpus), wanted, "400")
    assert points(chains) == Counter(wanted)


def test_unhealed_is_every_method_on_every_domain_and_the_papers_forms_on_one(module: Any, tmp_path: Path) -> None:
    chains = module.unhealed(setup(module, tmp_path))
    shipped, masked = ([[each for each in chain if ("--masked" in each) == flag] for chain in chains]
                       for flag in (False, True))  # fmt: skip
    assert points(shipped) == Counter(
        (domain, name, size)
        for domain in DOMAINS
        for name, row in METHODS.items()
        if row.ships
        for size in module.SIZES
    )
    assert {method for _, method, _ in points(masked)} >= {"slicegpt", "flap", "greedy-blocks"}
    assert {domain for domain, _, _ in points(masked)} == {"medical"}


def test_no_two_processes_write_to_one_place(module: Any, tmp_path: Path) -> None:
    where = setup(module, tmp_path)
    wanted = [(domain, method, size) for domain in DOMAINS for method in module.SHIPPED for size in module.SIZES]
    for chains in (module.unhealed(where), module.tuning(where, DOMAINS), module.healing(where, wanted, "400")):
        for name in ("--results", "--work"):
            used = [{option(command, name) for command in chain} for chain in chains]
            assert sum(map(len, used)) == len(set().union(*used))
    tags = Counter()  # type: Counter[str]
    for chains in module.recipes(where):
        results = [option(command, "--results") for chain in chains for command in chain]
        assert len(results) == len(set(results))
        tags.update(tag for chain in chains for command in chain for tag in option(command, "--tags").split(","))
    assert len(tags) == len((BENCHMARKS / "recipes.jsonl").read_text("utf-8").splitlines())
    assert set(tags.values()) == {1}


def test_the_scripts_take_the_commands(module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import methods

    where = setup(module, tmp_path)
    wanted = [("law", method, "0.6") for method in module.SHIPPED]
    every = [module.unhealed(where), module.tuning(where, DOMAINS), module.healing(where, wanted, "0,400")]
    for command in (command for chains in every for chain in chains for command in chain):
        monkeypatch.setattr(sys, "argv", command[1:])
        chosen = methods._arguments()
        assert chosen.heal_steps in ([0], [0, 400]) and chosen.limit_seconds == 500
        assert Path(command[1]).is_file()


def test_all_gpus_prune_the_parent_that_was_tuned_once(module: Any, tmp_path: Path) -> None:
    where = setup(module, tmp_path)
    (tuned,) = (command for chain in module.tuning(where, ["law"]) for command in chain)
    source = Path(option(tuned, "--work"))
    source.mkdir(parents=True)
    (source / "weights").write_text("tuned")
    module.copied(where, ["law"])
    healed = module.healing(where, [("law", method, "0.75") for method in module.SHIPPED], "400")
    for command in (command for chain in healed for command in chain):
        assert (Path(option(command, "--work")) / "weights").read_text() == "tuned"
        assert option(command, "--tune-steps") == option(tuned, "--tune-steps")
    (source / "weights").write_text("other")
    module.copied(where, ["law"])
    assert (tmp_path / "work" / "law-1" / "weights").read_text() == "tuned", "a phase that goes on keeps its weights"


def test_the_best_are_those_with_the_fewest_bits_after_healing(module: Any, tmp_path: Path) -> None:
    def row(method: str, bits: float, size: float = 0.75) -> dict[str, Any]:
        return {
            "method": method,
            "size": size,
            "pruned": {"bits_per_byte": 9 - bits},
            "healed": {"bits_per_byte": bits},
        }

    write_jsonl(tmp_path / "healed-law-0.jsonl", [{"method": "parent"}, row("a", 0.9), row("b", 0.7)])
    write_jsonl(tmp_path / "healed-law-1.jsonl", [row("c", 0.8), row("d", 0.1, size=0.9)])
    assert module.best(tmp_path, "law", 0.75, 2) == ["b", "c"]
    assert module.best(tmp_path, "medical", 0.75) == []


def test_commands_run_in_turn_each_on_its_gpu_and_failures_are_told(
    module: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tell = [sys.executable, "-c", "import os; print(os.environ['CUDA_VISIBLE_DEVICES'])"]
    module.start(
        setup(module, tmp_path, 2), [[tell, tell], [tell, [sys.executable, "-c", "raise SystemExit(3)"]]], False
    )
    assert (tmp_path / "gpu-0.log").read_text().split() == ["0", "0"]
    assert (tmp_path / "gpu-1.log").read_text().split() == ["1"]
    told = capsys.readouterr().out
    assert told.count("CUDA_VISIBLE_DEVICES=0 ") == 2 and "GPU 1: ended with code 3" in told
    module.start(setup(module, tmp_path, 2), [[tell]], True)
    assert (tmp_path / "gpu-0.log").read_text().split() == ["0", "0"]
