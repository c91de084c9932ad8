"""The pages of the frameworks run as they stand."""

import re
from pathlib import Path

import pytest

PAGES = Path(__file__).parents[2] / "docs" / "runs"
NAMES = ["aer", "cirq", "pennylane", "quimb", "qutip", "tenpy"]


def test_every_page_is_run_and_in_the_index():
    assert sorted(path.stem for path in PAGES.glob("*.md")) == ["README", *NAMES]
    index = (PAGES / "README.md").read_text()
    assert sorted(re.findall(r"\]\((\w+)\.md\)", index)) == NAMES


@pytest.mark.filterwarnings("default")  # of other libraries, about their own
@pytest.mark.parametrize("name", NAMES)
def test_the_page_runs(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    page = PAGES / f"{name}.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    assert blocks
    space = {"__name__": "page"}
    for block in blocks:
        exec(compile(block, str(page), "exec"), space)  # it is our own page
