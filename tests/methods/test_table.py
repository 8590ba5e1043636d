"""The table of methods: complete, cheap to list, and every row does what it says on the planner's side."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

from minigpt.errors import UnknownName
from minigpt.methods import METHODS, method_named, resolve


@pytest.mark.parametrize("name", METHODS)
def test_a_row_is_complete_and_its_functions_exist(name: str) -> None:
    method = METHODS[name]
    assert method.name == name and method.paper and method.loads and method.paper_form_summary
    assert method.axes or not method.ships
    assert method.rank or method.layers or not method.ships
    for reference, arguments in ((method.rank, 1), (method.layers, 2), (method.transform, 2), (method.paper_form, 2)):
        if reference is not None:
            assert len(inspect.signature(resolve(reference)).parameters) == arguments


def test_unknown_methods_get_a_suggestion() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'contextual'"):
        method_named("contextal")


def test_listing_loads_no_torch() -> None:
    code = "import sys, minigpt.methods; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
