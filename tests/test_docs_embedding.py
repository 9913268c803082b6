"""The examples of docs/embedding.md run, and print what the page says."""

from __future__ import annotations

import dataclasses
import re

import pytest

from dayfly.executor import Limits, Outcome, RunReport, Terms
from tests.helpers import ROOT, run_script

PAGE = (ROOT / "docs" / "embedding.md").read_text()
EXAMPLES = re.findall(
    r"^```python\n(.*?)^```\n\n```text\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE
)


def test_every_example_shows_what_it_prints() -> None:
    assert len(EXAMPLES) == PAGE.count("```python") == PAGE.count("```text") > 5


@pytest.mark.parametrize(("code", "printed"), EXAMPLES, ids=range(len(EXAMPLES)))
def test_example_prints_what_the_page_says(code: str, printed: str) -> None:
    assert run_script(code) == printed


@pytest.mark.parametrize("kind", [Limits, Terms])
def test_every_option_is_in_its_table(kind: type) -> None:
    for field in dataclasses.fields(kind):
        assert f"| `{field.name}` |" in PAGE


def test_every_outcome_and_every_field_of_a_report_is_named() -> None:
    for name in [*Outcome, *(field.name for field in dataclasses.fields(RunReport))]:
        if name not in ("call_id", "memory_start"):
            assert f"`{name}`" in PAGE or f".{name}" in PAGE, name
