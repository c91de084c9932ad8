"""The code of every page runs as it stands: what is in Python block after block in one namespace, what is for a shell.

What a page takes for granted, such as a state or files of the first implementation, is put there before. Pages whose
code reads a format by hand define it here, and are used by the tests of their formats.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

import quantum_memory as qm

ROOT = Path(__file__).parents[1]
LEGACY = ROOT / "tests" / "data" / "legacy"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
BLOCK = re.compile(r"```(python|sh)\n(.*?)```", re.DOTALL)
CODE = [str(page.relative_to(ROOT)) for page in PAGES if BLOCK.search(page.read_text())]


def state():
    rng = np.random.default_rng(0)
    amplitudes = rng.normal(size=2**15) + 1j * rng.normal(size=2**15)
    return qm.StateVector(amplitudes / np.linalg.norm(amplitudes), qubit_order="big")


def with_states(space):
    space |= {"qm": qm, "np": np, "state": state()}


def for_encryption(space):
    with_states(space)
    qm.save(state(), "old.qms")
    qm.save(state(), "shared.qms", encrypt="my passphrase")


def for_legacy_files(space):
    shutil.copyfile(LEGACY / "hdf5" / "h_n3_gzip.h5", "old.h5")


def for_migration(space):
    for folder in ("states", "older"):
        Path(folder).mkdir()
        shutil.copyfile(LEGACY / "json_v1" / "v1_minimal.json", f"{folder}/a.json")
    shutil.copytree(LEGACY / "checkpoints" / "n3" / "backups", "backups")
    shutil.copytree(LEGACY / "checkpoints" / "n3", "checkpoints")
    registry = json.loads(Path("checkpoints/checkpoint_registry.json").read_text())
    for name in list(registry["checkpoints"]):  # the files themselves are in the backups
        packed = Path("backups", f"checkpoint_{name}.json.zlib")
        if packed.exists():
            data = packed.read_bytes()  # a length of four bytes, a header of that length, and the text
            text = zlib.decompress(data[4 + int.from_bytes(data[:4], "little") :])
            Path("checkpoints", f"{name}.json").write_bytes(text)
        else:
            del registry["checkpoints"][name]
    assert len(registry["checkpoints"]) == 3
    Path("checkpoints/checkpoint_registry.json").write_text(json.dumps(registry))


BEFORE = {
    "docs/compression.md": with_states,
    "docs/encryption.md": for_encryption,
    "docs/legacy_files.md": for_legacy_files,
    "docs/migration.md": for_migration,
    "docs/serializer_formats.md": with_states,
}
WRITTEN = {
    "README.md": {
        "ghz.json", "ghz.npz", "ghz.qms", "run.qms", "general.qms", "small.qms", "quantum_memory.h5", "run",
        "label.qms", "quantum_state.json", "quantum_state.json.zlib", "backups", "run-again", "states",
    },
}  # fmt: skip
SAID = {
    "docs/reliability.md": ["calls failed"],
    "docs/interop.md": [
        "('q(0)', 'q(1)', 'q(2)')",
        "'000': ",
        "'111': ",
        "MatrixProductState(3 sites, bond dimension 2",
    ],
}


def in_a_shell(block):
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block], input="y\n" * 9, text=True, env=environment, check=True, timeout=120
    )


@pytest.mark.filterwarnings("default")  # of other libraries, about their own
@pytest.mark.parametrize("name", CODE)
def test_the_code_of_a_page_runs(tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    space = {"__name__": "page"}
    BEFORE.get(name, lambda space: None)(space)
    blocks = BLOCK.findall((ROOT / name).read_text())
    if name == "docs/checkpoints.md":
        blocks.append(blocks[0])  # the run, which is done, is started once more
    for kind, block in blocks:
        if kind == "sh":
            in_a_shell(block)
        else:
            exec(compile(block, name, "exec"), space)  # they are our own pages
    assert {path.name for path in tmp_path.iterdir()} >= WRITTEN.get(name, set())
    said = capsys.readouterr().out
    assert all(words in said for words in SAID.get(name, []))


def test_no_page_has_code_that_is_not_run():
    """What is no code of ours is marked as text: a page cannot be left out by another word behind the quotes."""
    for page in PAGES:
        marks = set(re.findall(r"^```(\w+)$", page.read_text(), re.MULTILINE))
        assert marks <= {"python", "sh", "text", "toml", "ini"}, page


def test_every_page_about_runs_is_in_their_index():
    runs = ROOT / "docs" / "runs"
    index = re.findall(r"\]\((\w+\.md)\)", (runs / "README.md").read_text())
    assert sorted(index) == sorted(page.name for page in runs.glob("*.md") if page.name != "README.md")


def anchors(page):
    """Return what the headings of a page are called in links."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_that_is_named_is_there():
    for page in PAGES:
        prose = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
        for target, anchor in re.findall(r"\]\((?!http)([^)#]*)(?:#([^)]+))?\)", prose):
            named = page.parent / target if target else page
            assert named.is_file(), f"{page.name} names {target}"
            assert not anchor or anchor in anchors(named), f"{page.name} names {target}#{anchor}"
