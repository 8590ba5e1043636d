"""Choice of a form: what fits is resident, what does not is streamed or spilled, and what is said if nothing fits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from minigpt.errors import ConfigError
from minigpt.planning.memory import MemorySettings, Parts, Work, pruning_peaks
from minigpt.planning.memory_forms import choose_form, describe
from tests.support.sizes import SEVEN, SMALL, STANDARD, WORK

AUTO = MemorySettings()


def form_for(parts: Parts, work: Work, settings: MemorySettings = AUTO, **options: Any) -> Any:
    """Choose a form on a device whose memory is all free."""
    size = options.pop("total")
    return choose_form(parts, work, settings, free=size, total=size, **{"streams": True, "method": "m"} | options)


def test_what_fits_is_resident_and_what_does_not_is_streamed() -> None:
    assert form_for(SEVEN, STANDARD, total=int(80e9))[0] == "resident"
    form, peak = form_for(SEVEN, STANDARD, total=int(24e9))
    assert form == peak.form == "streamed"
    assert describe(SEVEN, form, peak, total=int(24e9)).startswith("6.7B: streamed statistics and pruning, 8.0 of")


def test_settings_force_a_form() -> None:
    assert form_for(SMALL, WORK, MemorySettings(streaming="always"), total=10**9)[0] == "streamed"
    assert form_for(SEVEN, STANDARD, MemorySettings(streaming="never"), total=10**9)[0] == "resident"
    with pytest.raises(ConfigError, match="Method m needs the whole parent in memory"):
        form_for(SMALL, WORK, MemorySettings(streaming="always"), streams=False, total=10**9)


def test_when_nothing_fits_the_nearest_thing_is_named() -> None:
    nearest = r"has 4\.0 GB\. --set evaluation\.batch_tokens=\d+ needs"
    with pytest.raises(ConfigError, match=nearest):
        form_for(SEVEN, replace(STANDARD, repair_tokens=0, probe_tokens=0), total=int(4e9))
    with pytest.raises(ConfigError, match=r"13\.5 GB parent .*Method m cannot be streamed; contextual"):
        form_for(SEVEN, STANDARD, streams=False, total=int(12e9))
    with pytest.raises(ConfigError, match=r"Choose a smaller parent, or a device with 6\.\d GB"):
        form_for(SEVEN, STANDARD, total=int(4e9))


def test_text_goes_to_the_disk_where_the_process_has_no_room_for_it() -> None:
    kept = max(peak.host for peak in pruning_peaks(SEVEN, STANDARD, "streamed"))
    assert kept > 5e9
    assert form_for(SEVEN, STANDARD, total=int(24e9), host=2 * kept)[0] == "streamed"
    form, peak = form_for(SEVEN, STANDARD, total=int(24e9), host=kept)
    assert form == peak.form == "spilled"
    disk = max(peak.disk for peak in pruning_peaks(SEVEN, STANDARD, "spilled"))
    assert f"pruning, {disk / 1e9:.1f} GB of text on the disk, 8.0 of 24 GB" in describe(
        SEVEN, form, peak, total=int(24e9)
    )


def test_without_a_card_the_same_memory_decides() -> None:
    work = replace(STANDARD, accelerated=False, probe_tokens=0)
    assert form_for(SEVEN, work, total=int(16e9))[0] == "streamed"
    form, peak = form_for(SEVEN, work, total=int(11e9))
    assert form == "spilled"
    assert peak.device < 10e9


def test_settings_say_where_text_waits() -> None:
    always = MemorySettings(streaming="always", text="disk")
    assert form_for(SEVEN, STANDARD, always, total=int(80e9))[0] == "spilled"
    assert form_for(SEVEN, STANDARD, MemorySettings(text="disk"), total=int(80e9))[0] == "resident"
    memory = MemorySettings(streaming="always", text="memory")
    assert form_for(SEVEN, STANDARD, memory, total=int(80e9), host=10**9)[0] == "streamed"
