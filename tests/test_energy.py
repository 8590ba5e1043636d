"""Energy counters are those of whole processors, and what is not known is left out."""

from __future__ import annotations

from pathlib import Path

from minigpt.energy import energy, used


def zone(root: Path, name: str, label: str, microjoules: str) -> None:
    (root / name).mkdir()
    (root / name / "name").write_text(f"{label}\n")
    (root / name / "energy_uj").write_text(f"{microjoules}\n")


def test_packages_are_added_and_their_parts_are_not(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", "3000000")
    zone(tmp_path, "intel-rapl:0:0", "core", "1000000")
    zone(tmp_path, "intel-rapl:1", "package-1", "4500000")
    zone(tmp_path, "intel-rapl:2", "psys", "9000000")
    assert energy(powercap=tmp_path) == {"processor": 7.5}


def test_no_counter_is_no_energy(tmp_path: Path) -> None:
    assert energy(powercap=tmp_path) == energy(powercap=tmp_path / "missing") == {}
    zone(tmp_path, "intel-rapl:0", "package-0", "nonsense")
    assert energy(powercap=tmp_path) == {}
    assert "gpu" not in energy("cuda:99", powercap=tmp_path)


def test_a_counter_that_started_again_is_left_out() -> None:
    assert used({"processor": 5.0, "gpu": 1.0}, {"processor": 2.0, "gpu": 4.0}) == {"gpu": 3.0}
    assert used({"processor": 5.0}, {}) == {}
