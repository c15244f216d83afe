"""Simulated worlds: scenes, importers, the PyBullet world, sensors, the Gymnasium environment and the simulated robot.

Importing this package registers ``robonav/Navigate-v0``; PyBullet itself is loaded when a world is made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from robonav.errors import MissingDependencyError

try:
    import gymnasium
except ImportError as error:
    raise MissingDependencyError("gymnasium: not installed; pip install 'robonav[sim]'") from error

if TYPE_CHECKING:
    from robonav.types import RobotSpec
    from sim.env import NavigateEnv
    from sim.scenes import SceneSource

ENV_ID = "robonav/Navigate-v0"

if ENV_ID not in gymnasium.registry:
    gymnasium.register(id=ENV_ID, entry_point="sim.env:NavigateEnv")

__all__ = ["ENV_ID", "load_scene", "make_env"]


def make_env(scene: str = "rooms", robot: str | RobotSpec = "a1", **options: Any) -> NavigateEnv:
    """The environment without Gymnasium's wrappers; arguments as `sim.env.NavigateEnv`, all picklable.

    A factory for worker processes is ``functools.partial(sim.make_env, scene="rooms")``.

    Raises:
        RobonavError: unknown scene or robot, or PyBullet is not installed.
    """
    from sim.env import NavigateEnv

    return NavigateEnv(scene=scene, robot=robot, **options)


def load_scene(name_or_path: str, robot: str | RobotSpec = "a1", **options: Any) -> SceneSource:
    """Scenes of a preset, a scene .toml, a ROS map .yaml or a BARN grid .npy; see `sim.scenes.load_scene`."""
    from sim.scenes import load_scene as load

    return load(name_or_path, robot, **options)
