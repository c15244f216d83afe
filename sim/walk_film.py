"""Short films of a robot that walks through a scene on its own legs, for people to look at."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robonav.errors import MissingDependencyError, RobonavError, explain
from robonav.files import atomic_path
from robonav.types import Policy, RobotSpec, Scene
from sim.legged import LeggedWorld
from sim.render_world import RenderWorld
from sim.sensor_config import SensorConfig
from sim.sensors import SensorSuite

FORMATS = (".gif", ".webp")
FRAME_S = 0.05  # a trot's step takes a quarter of a second
CAMERA_LAG_S = 1.5  # behind the robot's heading
COLOURS = 64  # of a GIF
WEBP_QUALITY = 45


@dataclass(frozen=True, slots=True)
class Film:
    """What was seen, and how the walk ended."""

    frames: list[NDArray[np.uint8]]  # (height, width, 3) each, FRAME_S apart
    outcome: str  # "success", "collision", "fall", or "walking" when time was up
    time_s: float
    path_m: float


def film_walk(
    scene: Scene,
    spec: RobotSpec,
    policy: Policy,
    seconds: float = 6.0,
    skip_s: float = 0.0,
    size: tuple[int, int] = (360, 270),
    view: str = "close",
    seed: int = 0,
) -> Film:
    """Lets a policy walk a robot through a scene and films it with PyBullet's TinyRenderer.

    Args:
        scene: where it walks.
        spec: a robot whose legs are described.
        policy: drives by lidar and odometry, as in an evaluation.
        seconds: length of the film.
        skip_s: time that passes before it begins.
        size: width and height in pixels.
        view: as in `RenderWorld.frame`.
        seed: of the policy and of the sensors' errors.

    Raises:
        ConfigError: the robot has no legs, or they do not fit its URDF.
        SceneError: there is no such URDF.
    """
    world = LeggedWorld(spec)
    renderer = RenderWorld(spec, *size)
    frames: list[NDArray[np.uint8]] = []
    now_s, outcome = 0.0, "walking"
    try:
        world.load(scene)
        yaw_rad = world.yaw_rad
        for now_s, outcome in _walk(world, policy, seconds + skip_s, seed):  # noqa: B007 (they are returned)
            yaw_rad += (1.0 - math.exp(-FRAME_S / CAMERA_LAG_S)) * (world.yaw_rad - yaw_rad)
            if now_s < skip_s - 1e-6:
                continue
            looking_at = (world.x_m, world.y_m, yaw_rad)
            frames.append(renderer.frame(scene, looking_at, view, world.mover_state, world.posture))
        return Film(frames, outcome, now_s, world.path_m)
    finally:
        world.close()
        renderer.close()


def save_film(path: str | Path, film: Film) -> None:
    """Writes an animated GIF or WebP that repeats for ever.

    Raises:
        RobonavError: another suffix, nothing to write, or the file cannot be written.
        MissingDependencyError: Pillow is not installed.
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise RobonavError(explain(str(path), f"a film ({', '.join(FORMATS)})", f"'{path.suffix}'"))
    if not film.frames:
        raise RobonavError(explain(str(path), "at least one frame", f"none of the walk's {film.time_s:.1f} s"))
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingDependencyError("Pillow: not installed; pip install 'robonav[viz]'") from error
    images = [Image.fromarray(frame) for frame in film.frames]
    options: dict[str, Any] = {"quality": WEBP_QUALITY, "method": 6}
    if path.suffix.lower() == ".gif":
        # One palette for all frames, without dithering: what stands still stays the same and is not stored again.
        sample = np.hstack([film.frames[k * (len(images) - 1) // 4] for k in range(5)])
        palette = Image.fromarray(sample).quantize(COLOURS)
        images = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
        options = {"optimize": True}
    with atomic_path(path) as aside:
        kind = path.suffix[1:].upper()
        millis = round(FRAME_S * 1e3)
        images[0].save(aside, kind, save_all=True, append_images=images[1:], duration=millis, loop=0, **options)


def _walk(world: LeggedWorld, policy: Policy, seconds: float, seed: int) -> Iterator[tuple[float, str]]:
    """Time and outcome so far, FRAME_S apart; the walk is over once the outcome is not "walking"."""
    assert world.scene is not None
    sensors = SensorSuite(world, False, SensorConfig())
    sensors.start(seed)
    state, command = policy.reset(seed), (0.0, 0.0, 0.0)
    every = max(1, round(world.spec.dt_s / FRAME_S))
    dt_s, steps = world.spec.dt_s / every, round(seconds * every / world.spec.dt_s)
    yield 0.0, "walking"
    for step in range(steps):
        if step % every == 0:
            stamp_ns = round(step * dt_s * 1e9)
            state, decision = policy.act(state, sensors.read(stamp_ns, command))
            vx, vy, yaw_rate = decision.command.velocity.tolist()
            command = (vx, vy, yaw_rate)
        over = world.advance(command, dt_s)
        outcome = ("fall" if world.fallen else "collision") if over else "walking"
        if not over and math.dist(world.scene.goal, (world.x_m, world.y_m)) <= world.scene.goal_radius_m:
            outcome = "success"
        yield (step + 1) * dt_s, outcome
        if outcome != "walking":
            return
