"""The folder: one readable file a letter, its owner's alone."""

import asyncio
import logging
import stat
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def folder(make: Any, tmp_path: Path) -> Any:
    plugin = make("mail_folder")
    plugin.files = lambda: sorted((tmp_path / "data" / "mail").iterdir())
    return plugin


async def test_a_letter_is_a_file(folder: Any, write: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A letter becomes one .eml file, and the log has one line: its path, and nothing of what it says."""
    caplog.set_level(logging.DEBUG)
    await folder.send(write(), "key-1")
    [file] = folder.files()
    assert file.name.endswith("-key-1.eml")
    letter = message_from_bytes(file.read_bytes(), policy=policy.SMTP)
    assert letter["To"] == "ada@example.com"
    assert "314159" in letter.get_body(("plain",)).get_content()
    [record] = [record for record in caplog.records if record.name.startswith("hydracore")]
    assert (record.levelname, record.getMessage(), record.__dict__["file"]) == ("INFO", "mail written", str(file))
    assert "314159" not in caplog.text
    assert "314159" not in str(record.__dict__)


async def test_only_the_owner_may_read(folder: Any, write: Any) -> None:
    """The folder is 0700 and each file 0600, whatever the umask allows."""
    await folder.send(write(), "key")
    [file] = folder.files()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


async def test_a_retry_replaces(folder: Any, write: Any) -> None:
    """Another try of the same key leaves one file, with what was sent last."""
    await folder.send(write(code="111111"), "key")
    await folder.send(write(code="222222"), "key")
    [file] = folder.files()
    assert b"222222" in file.read_bytes()


@pytest.mark.parametrize(("one", "other"), [("1", "x-1"), ("a/b", "a_b"), ("a/b", "a%2Fb"), ("*", "x"), ("?", "y")])
async def test_no_key_takes_anothers_file(folder: Any, write: Any, one: str, other: str) -> None:
    """Two keys are two files, however alike they are once they are file names."""
    for key in (other, one, other):
        await folder.send(write(), key)
    assert len(folder.files()) == 2


@pytest.mark.parametrize("key", ["../../up", "/etc/passwd", "..", "a\nb", "nul\0l", "ключ"])
async def test_no_key_leaves_the_folder(folder: Any, write: Any, tmp_path: Path, key: str) -> None:
    """Whatever a key holds, its file is in the folder."""
    await folder.send(write(), key)
    assert len(folder.files()) == 1
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["mail"]


async def test_files_sort_by_time(make: Any, write: Any, tmp_path: Path) -> None:
    """The names sort as the letters were written."""
    start = datetime(2026, 12, 31, 23, 59, 59, 999_999, UTC)
    times = iter([start, start + timedelta(microseconds=1), start + timedelta(seconds=1)])
    plugin = make("mail_folder", now=lambda: next(times))
    for key in ("c", "b", "a"):
        await plugin.send(write(), key)
    names = sorted(path.name for path in (tmp_path / "data" / "mail").iterdir())
    assert [name[-5] for name in names] == ["c", "b", "a"]


async def test_many_at_once(folder: Any, write: Any) -> None:
    """Fifty letters at once are fifty whole files, and no draft is left behind."""
    await asyncio.gather(*(folder.send(write(code=f"{number:06}"), str(number)) for number in range(50)))
    assert len(folder.files()) == 50
    for file in folder.files():
        number = file.stem.rpartition("-")[2]
        assert f"{int(number):06}".encode() in file.read_bytes()


async def test_a_failed_write_leaves_nothing(folder: Any, write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the disk refuses, the try fails, the earlier file is whole and no draft is left."""
    await folder.send(write(code="111111"), "key")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space"):
            await folder.send(write(code="222222"), "key")
    [file] = folder.files()
    assert b"111111" in file.read_bytes()


def test_it_reaches_nobody(folder: Any) -> None:
    """It is registered as "folder", and as one that delivers to nobody."""
    [transport] = folder.hydracore_register_mail_transports()
    assert (transport.name, transport.delivers) == ("folder", False)
