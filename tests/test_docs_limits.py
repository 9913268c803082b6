"""The examples of docs/limits.md run, and print what the page says."""

from __future__ import annotations

import dataclasses
import re

import pytest

from dayfly.executor import Cause, Limits
from tests.helpers import ROOT, run_script

PAGE = (ROOT / "docs" / "limits.md").read_text()
EXAMPLES = re.findall(
    r"^```python\n(.*?)^```\n\n```text\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE
)


@pytest.mark.parametrize(("code", "printed"), EXAMPLES, ids=range(len(EXAMPLES)))
def test_example_prints_what_the_page_says(code: str, printed: str) -> None:
    assert run_script(code) == printed


def test_every_limit_and_every_cause_is_named() -> None:
    assert len(EXAMPLES) == PAGE.count("```python") == 2
    for name in [*Cause, *(field.name for field in dataclasses.fields(Limits))]:
        assert f"`{name}`" in PAGE, name
