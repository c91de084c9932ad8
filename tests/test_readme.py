"""The tour in the README runs as it stands."""

import re
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def test_the_tour_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(blocks) >= 5
    space = {}
    for block in blocks:
        exec(compile(block, str(README), "exec"), space)  # it is our own page
    written = {"ghz.json", "ghz.npz", "ghz.qms", "run.qms", "general.qms", "small.qms", "quantum_memory.h5", "run"}
    written |= {"label.qms", "quantum_state.json", "quantum_state.json.zlib", "backups", "run-again"}
    assert written == {p.name for p in tmp_path.iterdir()}


def test_every_page_that_is_named_is_there():
    for page in [README, *README.parent.glob("docs/**/*.md")]:
        prose = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
        for target in re.findall(r"\]\((?!http)([^)#]+)", prose):
            assert (page.parent / target).exists(), f"{page.name} names {target}"
