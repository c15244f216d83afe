"""``robonav run --sensors --randomisation``: what the driver is told, and what stands in the log's header."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import deploy.bundle
import deploy.supervisor
from robonav.cli import run
from robonav.errors import ConfigError
from sim.driver import make_driver


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the supervisor would have been given."""
    told: dict[str, Any] = {}

    def supervise(bundle: Path, factory: str, log: Path, **arguments: Any) -> Any:
        told.update(arguments)
        return SimpleNamespace(to_json=dict, log_error="", outcome="success", success=True)

    monkeypatch.setattr(deploy.supervisor, "run", supervise)
    monkeypatch.setattr(deploy.bundle, "find_bundle", lambda _: Path("anything"))
    return told


def test_what_is_drawn_stands_in_the_log_as_the_driver_draws_it(told: dict[str, Any]) -> None:
    words = ["--scene", "empty", "--seed", "5", "--sensors", "real", "--randomisation", "sim2real", "--json"]
    assert run.main(words) == 0
    kwargs = told["driver_kwargs"]
    assert (kwargs["sensors"], kwargs["randomisation"]) == ("real", "sim2real")
    driver = make_driver(**kwargs, realtime=False)
    assert json.loads(told["labels"]["randomisation"]) == driver.randomisation
    assert told["labels"]["sensors"] == "real"


def test_without_them_nothing_changes(told: dict[str, Any]) -> None:
    assert run.main(["--scene", "empty", "--json"]) == 0
    assert not {"sensors", "randomisation"} & (set(told["driver_kwargs"]) | set(told["labels"]))


@pytest.mark.parametrize(
    ("words", "said"),
    [(["--sensors", "reel"], "did you mean 'real'"), (["--randomisation", "sim2reel"], "did you mean 'sim2real'")],
)
def test_an_unknown_preset_is_one_line_before_anything_starts(
    told: dict[str, Any], words: list[str], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        run.main(["--scene", "empty", *words])
    assert told == {}
