"""Simulated worlds: scenes, importers, the PyBullet world, sensors, the Gymnasium environment and the simulated robot.

Importing this package registers the environments of `ENVIRONMENTS`; PyBullet itself is loaded when a world is made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from robonav.errors import MissingDependencyError

try:
    import gymnasium
except ImportError as error:
    raise MissingDependencyError("gymnasium: not installed; pip install 'robonav[sim]'") from error

if TYPE_CHECKING:
    from gymnasium.vector import VectorEnv

    from robonav.types import RobotSpec
    from sim.env import NavigateEnv
    from sim.scenes import SceneSource

ENV_ID = "robonav/Navigate-v0"
ENVIRONMENTS: dict[str, dict[str, Any]] = {  # id to the arguments that differ from `sim.env.NavigateEnv`'s defaults
    ENV_ID: {},
    "robonav/NavigateDepth-v0": {"depth": True},
    "robonav/NavigateCrowd-v0": {"scene": "crowd-few"},
    "robonav/NavigateMemory-v0": {"scene": "tmaze"},
    "robonav/NavigateSim2Real-v0": {"sensors": "real", "randomisation": "sim2real"},
    "robonav/NavigateAnalytic-v0": {"fidelity": "analytic"},
    "robonav/NavigateLegged-v0": {"fidelity": "legged"},
}

for _id, _arguments in ENVIRONMENTS.items():
    if _id not in gymnasium.registry:
        gymnasium.register(
            id=_id, entry_point="sim.env:NavigateEnv", vector_entry_point="sim.vector:make_vec", kwargs=_arguments
        )

__all__ = ["ENVIRONMENTS", "ENV_ID", "load_scene", "make_env", "make_vec"]


def make_env(scene: str = "rooms", robot: str | RobotSpec = "a1", **options: Any) -> NavigateEnv:
    """The environment without Gymnasium's wrappers; arguments as `sim.env.NavigateEnv`, all picklable.

    A factory for worker processes is ``functools.partial(sim.make_env, scene="rooms")``.

    Raises:
        RobonavError: unknown scene or robot, or PyBullet is not installed.
    """
    from sim.env import NavigateEnv

    return NavigateEnv(scene=scene, robot=robot, **options)


def make_vec(num_envs: int, workers: int | None = None, **options: Any) -> VectorEnv[Any, Any, Any]:
    """Environments in worker processes with shared memory; see `sim.vector.make_vec`.

    Raises:
        RobonavError: a number that cannot be, an unknown mode, or what the environment itself refuses.
    """
    from sim.vector import make_vec as make

    return make(num_envs, workers, **options)


def load_scene(name_or_path: str, robot: str | RobotSpec = "a1", **options: Any) -> SceneSource:
    """Scenes of a preset, a scene .toml, a ROS map .yaml or a BARN grid .npy; see `sim.scenes.load_scene`."""
    from sim.scenes import load_scene as load

    return load(name_or_path, robot, **options)
