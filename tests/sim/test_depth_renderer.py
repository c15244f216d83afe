"""Which renderer makes the depth images: EGL only where it works, and never by surprise."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import sim
from robonav.errors import MissingDependencyError
from sim import egl
from sim.sensor_config import DepthErrors, SensorConfig


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.delenv(egl.VARIABLE, raising=False)

    def make(gpu: bool, works: bool) -> list[str]:
        tried: list[str] = []
        monkeypatch.setattr(egl, "_has_gpu", lambda: gpu)
        monkeypatch.setattr(egl, "find_spec", lambda name: SimpleNamespace(origin=f"/there/{name}.so"))
        monkeypatch.setattr(egl, "_works", lambda: tried.append("once") or works)
        return tried

    return make


@pytest.mark.parametrize(("gpu", "works", "chosen"), [(False, True, False), (True, False, False), (True, True, True)])
def test_auto_takes_egl_only_where_a_trial_went_well(machine: Any, gpu: bool, works: bool, chosen: bool) -> None:
    tried = machine(gpu, works)
    assert [egl.wanted("auto"), egl.wanted("auto")] == [chosen, chosen]
    assert tried == (["once"] if gpu else [])  # and what came out is kept
    assert not egl.wanted("software")


def test_a_user_can_switch_it_off(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = machine(True, True)
    monkeypatch.setenv(egl.VARIABLE, "0")
    assert not egl.wanted("auto")
    assert not tried


def test_asking_for_it_in_vain_is_one_clear_line(machine: Any) -> None:
    machine(False, False)
    with pytest.raises(MissingDependencyError, match="depth renderer 'egl': no GPU") as error:
        sim.make_env(depth=True, sensors=SensorConfig(depth=DepthErrors(renderer="egl")))
    assert "\n" not in str(error.value)


def test_a_plug_in_that_pybullet_refuses_is_one_clear_line() -> None:
    bullet = SimpleNamespace(loadPlugin=lambda *args, **kwargs: -1)
    with pytest.raises(MissingDependencyError, match="plug-in eglRenderer"):
        egl.load(bullet, 0)


def test_a_trial_that_ends_its_process_ends_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(egl.sys, "executable", "/bin/false")
    assert not egl._works()
    monkeypatch.setattr(egl.sys, "executable", "/no/such/python")
    assert not egl._works()


def test_the_renderer_stands_in_the_info(machine: Any) -> None:
    machine(False, False)
    env = sim.make_env("empty", depth=True, policy_input=False)
    assert env.reset(seed=0)[1]["depth_renderer"] == "software"
    env.close()
    blind = sim.make_env("empty", policy_input=False)
    assert "depth_renderer" not in blind.reset(seed=0)[1]
    blind.close()


def test_both_renderers_see_the_same_where_egl_works() -> None:
    if not egl.wanted("auto"):
        pytest.skip("no GPU that PyBullet can render with")
    images = []
    for renderer in ("software", "egl"):
        env = sim.make_env(depth=True, policy_input=False, sensors=SensorConfig(depth=DepthErrors(renderer=renderer)))
        images.append(env.reset(seed=0)[0]["depth_m"])
        env.close()
    assert np.median(np.abs(images[0] - images[1])) < 0.02
