"""The page of the adapters runs as it stands."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "interop.md"


@pytest.mark.filterwarnings("default")  # of other libraries, about their own
def test_the_page_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    space = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        exec(compile(block, str(PAGE), "exec"), space)  # it is our own page
    said = capsys.readouterr().out
    assert "('q(0)', 'q(1)', 'q(2)')" in said
    assert set(re.findall(r"'([01]{3})': ", said)) == {"000", "111"}
    assert "MatrixProductState(3 sites, bond dimension 2" in said
