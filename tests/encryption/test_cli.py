"""The command line takes keys from files, from the environment and from whoever sits at the terminal."""

import json
import os
import pty
import select
import subprocess
import sys
from pathlib import Path

import pytest

import quantum_memory as qm
from quantum_memory.cli import main
from quantum_memory.testing.equality import assert_identical


@pytest.fixture
def folder(tmp_path, memory, key, monkeypatch):
    """Two encrypted files and one that is not."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "words").write_text("open sesame\n")
    qm.save(memory, "by-key.qms", encrypt=key)
    qm.save(memory, "by-words.qms", encrypt="open sesame")
    qm.save(memory, "plain.qms")
    return tmp_path


@pytest.fixture
def qmem(folder, capsys):
    def run(*arguments):
        code = main.run(list(arguments))
        said = capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        assert "open sesame" not in said.out + said.err
        return code, said.out, said.err

    return run


VERBS = [
    ("info", "by-key.qms"),
    ("verify", "by-key.qms"),
    ("compare", "by-key.qms", "plain.qms"),
    ("compare", "plain.qms", "by-key.qms"),
    ("convert", "by-key.qms", "new.qms"),
    ("compress", "by-key.qms"),
    ("verify", "--original", "plain.qms", "by-key.qms"),
]


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_every_verb_takes_a_key_file_by_option_or_from_the_environment(qmem, folder, monkeypatch, verb):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for wrong in ([], ["--key-file", "other"], ["--passphrase-file", "words"]):
        if "other" in wrong:
            qm.Key.new_file("other")
        code, out, err = qmem(*verb, *wrong)
        assert code == 10, out
        assert ("no key was given" if not wrong else "cannot be opened with this key") in out + err
        (folder / "other").unlink(missing_ok=True)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert qmem(*verb, "--key-file", "key")[0] == 0
    (folder / "new.qms").unlink(missing_ok=True)
    monkeypatch.setenv("QMEM_KEY_FILE", str(folder / "key"))
    assert qmem(*verb)[0] == 0


def test_a_passphrase_comes_from_a_file_or_from_the_environment(qmem, folder, monkeypatch):
    assert qmem("verify", "--passphrase-file", "words", "by-words.qms")[0] == 0
    monkeypatch.setenv("QMEM_PASSPHRASE", "open sesame")
    assert qmem("verify", "by-words.qms", "plain.qms")[0] == 0
    assert qmem("verify", "by-words.qms", "by-key.qms")[0] == 3
    assert qmem("verify", "--key-file", "key", "by-key.qms")[0] == 0  # options come first
    monkeypatch.setenv("QMEM_PASSPHRASE", "")
    assert qmem("verify", "by-words.qms")[0] == 10


def test_failures_are_said_as_json(qmem):
    code, out, _ = qmem("info", "--json", "by-key.qms")
    error = json.loads(out)["error"]
    assert (code, error["exit_code"], error["type"], error["path"]) == (10, 10, "WrongKeyError", "by-key.qms")
    facts = json.loads(qmem("info", "--json", "--key-file", "key", "by-key.qms")[1])
    assert facts["encrypted"] == {"cipher": "aes-256-gcm", "keys": 1}
    assert "aes-256-gcm, opened by 1 key " in qmem("info", "--key-file", "key", "by-key.qms")[1]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--key-file", "key", "--passphrase-file", "words", "by-key.qms"], 2),
        (["--key-file", "key", "plain.qms"], 2),
        (["--key-file", "none", "by-key.qms"], 6),
        (["--key-file", "words", "by-key.qms"], 2),
        (["--passphrase-file", "none", "by-key.qms"], 6),
        (["--passphrase-file", "latin", "by-key.qms"], 2),
        (["--passphrase-file", "empty", "by-key.qms"], 2),
        (["--passphrase-file", "long", "by-key.qms"], 2),
        (["--key-file", "key", "none.qms"], 6),
    ],
)
def test_what_is_wrong_with_the_key_is_said(qmem, folder, arguments, code):
    (folder / "latin").write_bytes("schlüssel".encode("latin-1"))
    (folder / "empty").write_bytes(b"\n")
    (folder / "long").write_bytes(bytes((1 << 16) + 1))
    assert qmem("verify", *arguments)[0] == code


def test_converting_encrypts_keeps_changes_and_gives_up(qmem, folder, memory, key):
    assert qmem("convert", "--encrypt", "--key-file", "key", "plain.qms", "a.qms")[0] == 0
    assert_identical(qm.load("a.qms", key=key), memory)
    assert qmem("convert", "--encrypt", "plain.qms", "none.qms")[0] == 2  # with which key?
    assert not Path("none.qms").exists()
    for name in ("k1", "k2"):
        qm.Key.new_file(name)
    assert qmem("convert", "--key-file", "key", "--encrypt-for", "k1", "--encrypt-for", "k2", "a.qms", "b.qms")[0] == 0
    for name in ("k1", "k2"):
        assert_identical(qm.load("b.qms", key=qm.Key.from_file(name)), memory)
    assert qmem("verify", "--key-file", "key", "b.qms")[0] == 10
    assert qmem("convert", "--key-file", "k1", "b.qms", "c.json")[0] == 2
    assert qmem("convert", "--key-file", "k1", "--decrypt", "b.qms", "c.json")[0] == 0
    assert_identical(qm.load("c.json"), memory)


def test_whoever_sits_at_the_terminal_is_asked_once_and_not_shown_what_he_types(folder):
    parent, child = pty.openpty()
    command = [Path(sys.executable).with_name("qmem"), "verify", "by-words.qms", "by-words.qms"]
    with subprocess.Popen(command, stdin=child, stdout=subprocess.PIPE, stderr=child) as process:
        os.close(child)
        shown = b""
        while b"Passphrase of by-words.qms: " not in shown:
            assert select.select([parent], [], [], 60)[0], shown
            shown += os.read(parent, 1000)
        os.write(parent, b"open sesame\n")
        out, _ = process.communicate(timeout=60)
    while select.select([parent], [], [], 0)[0]:
        try:
            shown += os.read(parent, 1000)
        except OSError:  # nobody holds the other end any more
            break
    os.close(parent)
    assert process.returncode == 0
    assert out.count(b"OK") == 2
    assert shown.count(b"Passphrase") == 1
    assert b"sesame" not in shown + out


@pytest.mark.parametrize("what", ["file", "folder", "exported"])
def test_whoever_sits_at_the_terminal_is_not_asked_for_a_passphrase_where_only_a_key_file_opens(folder, key, what):
    with qm.BackupManager(folder / "backups", key=key, durable=False) as manager:
        manager.create_backup(folder / "words")
        manager.export_backup(None, folder / "x.qmb")
    arguments = {
        "file": ["verify", "by-key.qms"],
        "folder": ["backup", "list", "-C", "backups"],
        "exported": ["backup", "import", "-C", "other", "x.qmb"],
    }[what]
    parent, child = pty.openpty()
    command = [Path(sys.executable).with_name("qmem"), *arguments]
    done = subprocess.run(command, check=False, stdin=child, capture_output=True, timeout=60)
    os.close(child)
    os.close(parent)
    said = (done.stdout + done.stderr).decode()
    assert done.returncode == 10
    assert "no key was given" in said
    assert "give its key file, which alone opens it" in said
    assert "Passphrase" not in said
