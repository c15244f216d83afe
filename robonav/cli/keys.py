"""``robonav keys``: who may connect to a robot: makes keys, lists them, and takes them back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import tyro

from robonav.cli.args import UsageError, parse
from robonav.errors import explain

EXIT_PROBLEMS = 1


@dataclass(frozen=True)
class KeysArgs:
    """Arguments of keys."""

    action: tyro.conf.Positional[Literal["new", "list", "revoke"]]
    """new makes a pair and lets it connect, list shows who may, revoke cuts one off within a second."""
    name: tyro.conf.Positional[str] = ""
    """new, revoke: of the key; a person's or a machine's."""
    role: Literal["observer", "estop", "commander"] = "observer"
    """new: observers see the state and may press the e-stop; estop may also re-arm it; commander may also drive."""
    keys: str = ""
    """Folder of the robot's keys; ~/.config/robonav/keys if not given."""
    out: Path | None = None
    """new: the client's file, to be moved to its machine; NAME.key in the folder of the keys if not given."""
    json: bool = False
    """list: print as JSON."""


def main(argv: Sequence[str]) -> int:
    """Exit status 0; 1 if list finds a file that is damaged or that others can read."""
    description = "Keys of a robot's operator link: 'robonav run --listen tcp://...' lets nobody in without one."
    examples = [
        "robonav keys new alice --role commander",
        "robonav keys new gate --role estop --out gate.key",
        "robonav keys list",
        "robonav keys revoke alice",
    ]
    args = parse(KeysArgs, argv, "robonav keys", description, examples)
    if bool(args.name) == (args.action == "list"):
        expected = "no name" if args.action == "list" else "the name of a key"
        raise UsageError(explain(f"robonav keys {args.action}", expected, f"'{args.name}'"))
    from deploy import keys

    folder = keys.keys_folder(args.keys)
    if args.action == "new":
        client = keys.new_key(folder, args.name, args.role, args.out)
        print(f"{args.name} may connect as {args.role}. Move {client} to its machine; it holds the secret.")
        return 0
    if args.action == "revoke":
        keys.revoke(folder, args.name)
        print(f"{args.name} is revoked.")
        return 0
    return _list(folder, args.json)


def _list(folder: Path, as_json: bool) -> int:
    from deploy import keys

    rows = [(entry, "allowed") for entry in keys.allowed(folder).values()]
    rows += [(entry, "revoked") for entry in keys.revoked(folder)]
    problems = keys.problems(folder)
    if as_json:
        entries = [{**asdict(entry), "state": state} for entry, state in rows]
        print(json.dumps({"folder": str(folder), "keys": entries, "problems": problems}, indent=2))
    else:
        print(f"keys in {folder}" if rows else f"no keys in {folder}")
        for entry, state in rows:
            print(f"  {entry.name:<16} {entry.role:<10} {state:<8} {entry.fingerprint}  {entry.created}")
        for line in problems:
            print(f"  problem: {line}")
    return EXIT_PROBLEMS if problems else 0
