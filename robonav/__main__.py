"""``python -m robonav`` is the command ``robonav``."""

from __future__ import annotations

from robonav.cli.main import entry

if __name__ == "__main__":
    entry()
