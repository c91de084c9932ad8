"""What is given to a manager of backups and is none of what it takes is said, before anything is done."""

import pytest

from quantum_memory.errors import InvalidStateError
from quantum_memory.lifecycle.backup_manager import BackupManager


@pytest.mark.parametrize(
    "given",
    [
        {"keep": 3}, {"keep": "7d"}, {"backup_dir": 3}, {"backup_dir": b"backups"}, {"backup_dir": ""}, {"key": b"x"},
        {"max_backups": "many"}, {"max_backups": 0}, {"max_age_days": "7d"}, {"max_age_days": -1},
        {"compression": "best"},
    ],
    ids=str,
)  # fmt: skip
def test_a_manager_is_not_made_of_what_is_none(tmp_path, given):
    with pytest.raises(InvalidStateError) as caught:
        BackupManager(**{"backup_dir": tmp_path / "b", **given})
    assert caught.value.next_step
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    "ask",
    {
        "create none": lambda manager, _: manager.create_backup(None),
        "create a number": lambda manager, _: manager.create_backup(3),
        "tags as text": lambda manager, path: manager.create_backup(path, tags="paper"),
        "a tag that is none": lambda manager, path: manager.create_backup(path, tags=[3]),
        "before none": lambda manager, _: manager.before_write(None),
        "list of a number": lambda manager, _: manager.list_backups(3),
        "newest of none": lambda manager, _: manager.get_latest_backup(b"x"),
        "restore to a number": lambda manager, _: manager.restore_backup(manager.list_backups()[0]["id"], 3),
        "verify deeply": lambda manager, _: manager.verify(depth="deep"),
        "verify one deeply": lambda manager, _: manager.verify_backup(manager.list_backups()[0]["id"], depth=None),
    }.items(),
    ids=lambda ask: ask[0],
)
def test_what_is_asked_with_what_is_none_is_refused(tmp_path, ask):
    (tmp_path / "text").write_text("some text")
    with BackupManager(tmp_path / "b", durable=False) as manager:
        one = manager.create_backup(tmp_path / "text")
        with pytest.raises(InvalidStateError) as caught:
            ask[1](manager, tmp_path / "text")
        assert caught.value.next_step
        assert manager.folder.ids() == [one]
