"""Drawings of scenes and trajectories."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

import sim

pytest.importorskip("matplotlib", reason="matplotlib is not installed")


def test_pictures_show_scene_and_path(tmp_path) -> None:
    from sim.render import save_scenes

    scene = sim.load_scene("office").scene(0)
    line = np.array([scene.start[:2], (3.6, 5.0), scene.goal])
    save_scenes(tmp_path / "bare.png", [scene])
    save_scenes(tmp_path / "path.png", [scene], [{"driven": line}])
    bare, path = (cv2.imread(str(tmp_path / name)) for name in ("bare.png", "path.png"))
    assert bare.shape == path.shape
    assert 0.001 < (bare != path).mean() < 0.2
    rooms = [sim.load_scene("rooms").scene(i) for i in range(3)]
    save_scenes(tmp_path / "rooms.png", rooms, columns=2)
    assert cv2.imread(str(tmp_path / "rooms.png")) is not None
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bare.png", "path.png", "rooms.png"]
