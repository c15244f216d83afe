"""The robot's keys: a folder with the robot's own pair, and who may connect, with a role each. CURVE25519, as z85 text.

    robot.key            the robot's pair; its public half is in every client's file
    allowed/NAME.json    name, role and public key of who may connect
    revoked/             the same of who may no more
    NAME.key             a client's pair, to be moved to that client's machine; the robot does not need it

Every file can be read by its owner only, and one that others can read is refused. A secret is never shown.
"""

from __future__ import annotations

import json
import os
import re
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import zmq

from deploy.authority import Role
from robonav.errors import LinkError, explain, nearest

ROBOT_KEY = "robot.key"
ALLOWED, REVOKED = "allowed", "revoked"
ROLES: tuple[str, ...] = get_args(Role)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")
_Z85 = re.compile(r"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")


@dataclass(frozen=True, slots=True)
class Allowed:
    """Who may connect, as what."""

    name: str
    role: Role
    public: str
    created: str  # date and time, UTC

    @property
    def fingerprint(self) -> str:
        """Enough of the public key to tell two apart."""
        return self.public[:8]


@dataclass(frozen=True, slots=True)
class Pair:
    """A key pair, and for a client the robot's public key."""

    name: str
    public: str
    secret: str
    robot: str = ""

    def __repr__(self) -> str:
        return f"Pair(name={self.name!r}, public={self.public!r})"  # a secret has no place in a traceback


def keys_folder(path: str = "") -> Path:
    """The folder that is given, or the user's own."""
    if path:
        return Path(path)
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "robonav" / "keys"


def new_key(folder: Path, name: str, role: str, out: Path | None = None) -> Path:
    """Makes a client's pair and lets it connect; the robot's own pair is made with the first.

    Returns:
        The client's file, which holds its secret.

    Raises:
        LinkError: a name or role that cannot be, one that is taken, or a folder that cannot be written.
    """
    if not _NAME.fullmatch(name) or f"{name}.key" == ROBOT_KEY:
        raise LinkError(explain("name of the key", "up to 32 letters, digits, . _ or -, and not 'robot'", f"'{name}'"))
    if role not in ROLES:
        raise LinkError(f"unknown role '{role}'; {nearest(role, ROLES)}")
    listed, client = folder / ALLOWED / f"{name}.json", out or folder / f"{name}.key"
    for path in (listed, client):
        if path.exists():
            raise LinkError(explain(str(path), "a new name", "a key of that name", "revoke it, or choose another name"))
    for part in (folder, folder / ALLOWED):
        _private_folder(part)
    if not (folder / ROBOT_KEY).exists():
        public, secret = _new_pair()
        _write_private(folder / ROBOT_KEY, {"name": "robot", "public": public, "secret": secret})
    public, secret = _new_pair()
    _write_private(client, asdict(Pair(name, public, secret, robot_pair(folder).public)))
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    _write_private(listed, {"name": name, "role": role, "public": public, "created": created})
    return client


def robot_pair(folder: Path) -> Pair:
    """The robot's own pair.

    Raises:
        LinkError: there is none, it is damaged, or others can read it.
    """
    path = folder / ROBOT_KEY
    if not path.exists():
        do = "make a key with 'robonav keys new NAME --role estop'"
        raise LinkError(explain(f"keys in {folder}", f"the robot's pair {ROBOT_KEY}", "none", do))
    return load_pair(path)


def load_pair(path: Path) -> Pair:
    """A pair of a file.

    Raises:
        LinkError: missing, damaged, or readable by others.
    """
    data = _read_private(path)
    pair = Pair(*(str(data.get(key, "")) for key in ("name", "public", "secret", "robot")))
    keys = (pair.public, pair.secret) + ((pair.robot,) if path.name != ROBOT_KEY else ())
    if not all(_Z85.fullmatch(key) for key in keys):
        raise LinkError(explain(str(path), "a key file of 'robonav keys new'", "something else", "make a new key"))
    return pair


def allowed(folder: Path) -> dict[str, Allowed]:
    """Public key to who it is. A file that is damaged, or that others can write, allows nobody."""
    found = {}
    for path in sorted((folder / ALLOWED).glob("*.json")):
        try:
            entry = load_allowed(path)
        except LinkError:
            continue
        found[entry.public] = entry
    return found


def load_allowed(path: Path) -> Allowed:
    """Who one file allows.

    Raises:
        LinkError: damaged, of another name, or readable by others.
    """
    data = _read_private(path)
    entry = Allowed(*(str(data.get(key, "")) for key in ("name", "role", "public", "created")))  # type: ignore[arg-type]
    own = path.name == f"{entry.name}.json" or path.parent.name == REVOKED
    if not own or not _NAME.fullmatch(entry.name) or entry.role not in ROLES or not _Z85.fullmatch(entry.public):
        raise LinkError(explain(str(path), "name, role and public key", "something else", "revoke it and make another"))
    return entry


def revoke(folder: Path, name: str) -> None:
    """Takes a key's right to connect; a robot that runs cuts it off within a second.

    Raises:
        LinkError: there is no such key.
    """
    path = folder / ALLOWED / f"{name}.json"
    if not _NAME.fullmatch(name) or not path.exists():
        known = [p.stem for p in (folder / ALLOWED).glob("*.json")]
        raise LinkError(f"no key '{name}' in {folder}; {nearest(name, known) if known else 'there are none'}")
    _private_folder(folder / REVOKED)
    path.replace(folder / REVOKED / f"{name}-{time.time_ns()}.json")


def revoked(folder: Path) -> list[Allowed]:
    """Who was allowed once."""
    found = []
    for path in sorted((folder / REVOKED).glob("*.json")):
        try:
            found.append(load_allowed(path))
        except LinkError:
            continue
    return found


def problems(folder: Path) -> list[str]:
    """One line for each file that is damaged or that others can read."""
    found = []
    paths = [*sorted((folder / ALLOWED).glob("*.json")), *sorted(folder.glob("*.key"))]
    for path in paths:
        try:
            load_pair(path) if path.suffix == ".key" else load_allowed(path)
        except LinkError as error:
            found.append(str(error))
    return found


def _new_pair() -> tuple[str, str]:
    public, secret = zmq.curve_keypair()
    return public.decode(), secret.decode()


def _private_folder(path: Path) -> None:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise LinkError(f"{path}: cannot be made ({error.strerror}); choose another folder with --keys") from None


def _write_private(path: Path, data: dict[str, Any]) -> None:
    """Writes a new file that nobody else can read at any time, whole or not at all."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(handle, "w") as stream:
            json.dump(data, stream, indent=2)
            stream.write("\n")
            stream.flush()
            os.fsync(stream.fileno())
        aside.replace(path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise LinkError(f"{path}: cannot be written ({error.strerror}); choose another folder") from None


def _read_private(path: Path) -> dict[str, Any]:
    try:
        mode = path.stat().st_mode & 0o777
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "no text"
        raise LinkError(f"{path}: cannot be read ({why}); check the path") from None
    if mode & 0o077:
        raise LinkError(explain(str(path), "permissions 0600", f"{mode:04o}", f"chmod 600 {path}"))
    try:
        data = json.loads(text)
    except ValueError:
        data = None
    if not isinstance(data, dict):
        raise LinkError(explain(str(path), "a file of 'robonav keys new'", "something else", "make a new key"))
    return data
