"""Keys: files that their owner alone can read, names and roles that are checked, and secrets that are never shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deploy import keys
from robonav.cli.main import main
from robonav.errors import LinkError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "keys"


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    status = main(["keys", *words])
    shown = capsys.readouterr()
    return status, shown.out + shown.err


def secrets(folder: Path) -> list[str]:
    return [json.loads(p.read_text())["secret"] for p in folder.rglob("*.key")]


def test_new_list_and_revoke_by_command_show_no_secret(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--keys", str(folder)]
    shown = ""
    for words in (["new", "alice", "--role", "commander"], ["new", "gate", "--role", "estop"], ["new", "eye"]):
        status, text = run(capsys, *words, *where)
        assert status == 0
        shown += text
    status, text = run(capsys, "list", *where)
    assert status == 0
    assert [line.split()[:3] for line in text.splitlines()[1:]] == [
        ["alice", "commander", "allowed"],
        ["eye", "observer", "allowed"],
        ["gate", "estop", "allowed"],
    ]
    shown += text
    status, text = run(capsys, "revoke", "gate", *where)
    assert (status, text) == (0, "gate is revoked.\n")
    status, text = run(capsys, "list", "--json", *where)
    listed = json.loads(text)
    assert {k["name"]: k["state"] for k in listed["keys"]} == {"alice": "allowed", "eye": "allowed", "gate": "revoked"}
    assert listed["problems"] == []
    shown += text
    assert len(secrets(folder)) == 4
    assert not any(secret in shown for secret in secrets(folder))
    assert not any(secret in repr(keys.load_pair(folder / "alice.key")) for secret in secrets(folder))


def test_every_file_can_be_read_by_its_owner_only(folder: Path) -> None:
    keys.new_key(folder, "alice", "commander")
    keys.revoke(folder, "alice")
    keys.new_key(folder, "bob", "observer", folder / "to-hand-over.key")
    files = [p for p in folder.rglob("*") if p.is_file()]
    assert len(files) == 5
    assert {p.stat().st_mode & 0o777 for p in files} == {0o600}
    assert {p.stat().st_mode & 0o777 for p in [folder, folder / "allowed", folder / "revoked"]} == {0o700}


def test_a_pair_fits_its_listing_and_knows_the_robot(folder: Path) -> None:
    client = keys.load_pair(keys.new_key(folder, "alice", "estop"))
    robot = keys.robot_pair(folder)
    assert keys.allowed(folder) == {client.public: keys.load_allowed(folder / "allowed" / "alice.json")}
    assert keys.allowed(folder)[client.public].role == "estop"
    assert client.robot == robot.public
    keys.new_key(folder, "bob", "estop")
    assert keys.robot_pair(folder) == robot  # made once


def test_a_revoked_name_may_be_given_again_with_another_key(folder: Path) -> None:
    first = keys.load_pair(keys.new_key(folder, "alice", "commander"))
    keys.revoke(folder, "alice")
    assert keys.allowed(folder) == {}
    (folder / "alice.key").unlink()
    second = keys.load_pair(keys.new_key(folder, "alice", "observer"))
    assert second.public != first.public
    assert list(keys.allowed(folder)) == [second.public]
    assert [entry.public for entry in keys.revoked(folder)] == [first.public]


@pytest.mark.parametrize("name", ["", "a/b", "../x", "robot", "-x", "x" * 33, "a b", "ü"])
def test_a_name_that_is_no_file_name_is_refused(folder: Path, name: str) -> None:
    with pytest.raises(LinkError, match="name of the key: expected"):
        keys.new_key(folder, name, "observer")
    assert not folder.exists()


def test_mistakes_are_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys.new_key(folder, "alice", "observer")
    for words, expected in (
        (["new", "alice"], "alice.json: expected a new name, got a key of that name"),
        (["new"], "robonav keys new: expected the name of a key"),
        (["list", "alice"], "robonav keys list: expected no name"),
        (["revoke", "alcie"], "did you mean 'alice'?"),
        (["new", "bob", "--role", "king"], "king"),
        (["shred"], "shred"),
    ):
        status, text = run(capsys, *words, "--keys", str(folder))
        assert status == 2
        assert expected in text
        assert text.count("\n") == 1
    with pytest.raises(LinkError, match="known: commander, estop, observer"):
        keys.new_key(folder, "bob", "king")
    with pytest.raises(LinkError, match="there are none"):
        keys.revoke(folder / "nowhere", "alice")
    with pytest.raises(LinkError, match="make a key with 'robonav keys new"):
        keys.robot_pair(folder / "nowhere")


def test_a_file_that_others_can_read_is_refused_and_listed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    client = keys.new_key(folder, "alice", "commander")
    client.chmod(0o640)
    with pytest.raises(LinkError, match=r"alice.key: expected permissions 0600, got 0640; chmod 600 .*alice.key"):
        keys.load_pair(client)
    (folder / "allowed" / "alice.json").chmod(0o644)
    assert keys.allowed(folder) == {}  # who can write it could let himself in
    status, text = run(capsys, "list", "--keys", str(folder))
    assert status == 1
    assert text.count("problem: ") == 2


KING = '{"name": "alice", "role": "king", "public": "x"}'


@pytest.mark.parametrize("text", ["", "no json", "[]", "{}", KING, "\xff"])
def test_a_damaged_file_lets_nobody_in(folder: Path, text: str) -> None:
    client = keys.new_key(folder, "alice", "commander")
    keys.new_key(folder, "bob", "commander")
    for path in (client, folder / "allowed" / "alice.json", folder / "robot.key"):
        path.write_bytes(text.encode("latin-1"))
    assert [entry.name for entry in keys.allowed(folder).values()] == ["bob"]
    for path in (client, folder / "robot.key"):
        with pytest.raises(LinkError) as error:
            keys.load_pair(path)
        assert "\n" not in str(error.value)
    assert len(keys.problems(folder)) == 3


def test_a_listing_that_was_renamed_lets_nobody_in(folder: Path) -> None:
    keys.new_key(folder, "alice", "observer")
    (folder / "allowed" / "alice.json").rename(folder / "allowed" / "bob.json")
    assert keys.allowed(folder) == {}


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LinkError, match="cannot be made"):
        keys.new_key(tmp_path / "file" / "keys", "alice", "observer")


def test_the_users_own_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert keys.keys_folder() == tmp_path / "robonav" / "keys"
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert keys.keys_folder() == tmp_path / ".config" / "robonav" / "keys"
    assert keys.keys_folder("here") == Path("here")
