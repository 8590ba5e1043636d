"""Settings of the least-squares repair."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from minigpt.ranges import at_least, check_ranges


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairSettings:
    """Settings of the least-squares repair of the pruned model, before it is healed.

    Attributes:
        when: "auto" repairs if the repair is part of the method; "always" and "never" override the method. Setting
            any other field of this group with `--set` means "always".
        tokens: tokens of calibration text to fit on; 0 means no repair.
        ridge: ridge penalty, as a fraction of the Gram matrix's mean diagonal; null chooses it by the sample's size.
        sequential: fit each layer to the inputs that the pruned layers below it give, so that it also corrects their
            errors; false fits every layer to the parent's inputs.
        target: "stream" fits the parent's residual stream behind the projection, "output" the projection's own output.
    """

    when: Literal["auto", "always", "never"] = "auto"
    tokens: int = 65536
    ridge: float | None = None
    sequential: bool = True
    target: Literal["output", "stream"] = "stream"

    def __post_init__(self) -> None:
        check_ranges(self, {"tokens": at_least(0), "ridge": at_least(0, 1e6)}, named="repair.{}")
