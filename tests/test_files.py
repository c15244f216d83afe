from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from robonav.errors import RobonavError
from robonav.files import atomic_path, write_bytes_atomic, write_json_atomic, write_text_atomic


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_writes_and_makes_the_folder(tmp_path):
    target = tmp_path / "a" / "b" / "note.txt"
    write_text_atomic(target, "größer\n")
    assert target.read_bytes() == "größer\n".encode()
    assert names(target.parent) == ["note.txt"]


def test_replaces(tmp_path):
    target = tmp_path / "x.bin"
    write_bytes_atomic(target, b"old")
    write_bytes_atomic(target, b"new")
    assert target.read_bytes() == b"new"


@pytest.mark.parametrize("error", [ValueError("ours"), KeyboardInterrupt()])
def test_a_failure_inside_leaves_the_old_file_and_nothing_else(tmp_path, error):
    target = tmp_path / "x.json"
    target.write_text("old")
    with pytest.raises(type(error)), atomic_path(target) as aside:
        aside.write_text("half")
        raise error
    assert target.read_text() == "old"
    assert names(tmp_path) == ["x.json"]


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path):
    target = tmp_path / "x.json"
    said = r"x\.json: cannot write \(No space left on device\); free some space"
    with pytest.raises(RobonavError, match=said), atomic_path(target) as aside:
        aside.write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert names(tmp_path) == []


def test_the_temporary_lies_beside_and_keeps_the_suffix(tmp_path):
    with atomic_path(tmp_path / "picture.png") as aside:
        assert aside.parent == tmp_path
        assert aside.suffix == ".png"
        assert not (tmp_path / "picture.png").exists()


def test_a_folder_that_cannot_be_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RobonavError, match="cannot write here"):
        write_text_atomic(tmp_path / "file" / "x.txt", "")


def test_a_target_that_is_a_folder_is_one_line(tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(RobonavError, match="regular file"):
        write_text_atomic(tmp_path / "taken", "")
    assert names(tmp_path) == ["taken"]


def test_json_refuses_nan_and_keeps_the_old_file(tmp_path):
    target = tmp_path / "x.json"
    write_json_atomic(target, {"rate": 0.5})
    with pytest.raises(ValueError, match="JSON"):
        write_json_atomic(target, {"rate": float("nan")})
    assert json.loads(target.read_text()) == {"rate": 0.5}


def test_a_link_is_followed_and_a_device_or_folder_refused(tmp_path):
    real = tmp_path / "real.json"
    link = tmp_path / "link.json"
    real.write_text("old")
    link.symlink_to(real)
    write_text_atomic(link, "new")
    assert link.is_symlink()
    assert real.read_text() == "new"
    os.mkfifo(tmp_path / "pipe")
    for target in (tmp_path / "pipe", tmp_path, Path("/dev/null")):
        with pytest.raises(RobonavError, match="regular file"):
            write_text_atomic(target, "x")
    assert not Path("/dev/null").is_file()
