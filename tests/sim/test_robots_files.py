"""Robots as files: the presets, a URDF of one's own, and one clear line for what is wrong with either."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from robonav.config import config_dir, find_config, load_robot
from robonav.errors import ConfigError, RobonavError, SceneError
from robonav.types import Scene
from sim.leg_kinematics import leg_geometries
from sim.legged import LeggedWorld
from sim.robot import standing_size_m
from sim.urdf import find_urdf, read_urdf
from sim.walking_body import WalkingBody

SHIPPED = ("a1", "aliengo", "laikago", "mini_cheetah", "spirit40", "vision60")
FREE = Scene("free", (-20.0, -20.0, 20.0, 20.0), (0.0, 0.0, 0.0), (15.0, 15.0))


def one_line(caught: pytest.ExceptionInfo[RobonavError]) -> str:
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("name", "mass_kg"),
    [("a1", 12.5), ("aliengo", 20.6), ("laikago", 25.6), ("mini_cheetah", 8.9), ("spirit40", 11.5), ("vision60", 26.9)],
)
def test_presets_have_the_urdfs_mass_and_size(name: str, mass_kg: float) -> None:
    spec = load_robot(name)
    body = WalkingBody.of(spec)
    assert body.mass_kg == pytest.approx(mass_kg, abs=0.15)
    assert abs(body.com_m[1]) < 0.02
    length, width, height = standing_size_m(spec)
    # The footprint that the map and the planner know: the standing robot, on a centimetre or a few.
    assert spec.length_m == pytest.approx(length, abs=0.035)
    assert spec.width_m == pytest.approx(width, abs=0.035)
    assert spec.height_m == pytest.approx(height, abs=0.035)


@pytest.mark.parametrize("name", sorted(path.stem for path in (config_dir() / "robots").glob("*.toml")))
def test_every_preset_loads_and_says_where_its_urdf_is_missing(name: str) -> None:
    spec = load_robot(name)
    assert spec.name == name
    assert spec.legs is not None
    try:
        leg_geometries(spec)
    except SceneError as error:
        assert name not in SHIPPED
        assert "example-robot-data" in str(error)


def test_an_unknown_robot_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"robots: no preset 'aliengoo'; did you mean 'aliengo'\?"):
        load_robot("aliengoo")


# -- a robot whose description does not fit ---------------------------------------------------------------------------


def variant(tmp_path: Path, old: str, new: str) -> str:
    text = find_config("robots", "a1").read_text()
    assert old in text
    path = tmp_path / "odd.toml"
    path.write_text(text.replace(old, new, 1))
    return str(path)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            'hip = "FL_hip_joint"',
            'hip = "FL_hip_jiont"',
            r"legs\.front_left: a1\.urdf has no joint 'FL_hip_jiont'; did",
        ),
        ('foot = "FR_toe"', 'foot = "FR_tow"', r"legs\.front_right: a1\.urdf has no link 'FR_tow'; did you mean"),
        ('knee = "RL_lower_joint"', 'knee = "RR_lower_joint"', r"legs\.rear_left: expected joints"),
        ('thigh = "RR_upper_joint"', 'thigh = "RR_toe_fixed"', r"legs\.rear_right"),
        ("stance_height_m = 0.33", "stance_height_m = 0.9", r"expected a stance_height_m within reach"),
        ("stance_height_m = 0.33", "stance_height_m = -0.3", r"stance_height_m: expected above 0"),
        ("stance_height_m = 0.33", "max_torque_nm = [1.0, 1.0, 1.0]", r"stance_height_m' is missing"),
        ("foot_shift_x_m = 0.012", "max_torque_nm = [9.0, -9.0, 9.0]", r"max_torque_nm: expected above 0"),
        ("foot_shift_x_m = 0.012", "max_torque_nm = [9.0, 9.0]", r"max_torque_nm: expected a list of 3, got 2"),
        ("foot_shift_x_m = 0.012", "foot_shft_x_m = 0.012", r"unknown key 'foot_shft_x_m'; did you mean"),
        ('foot = "FL_toe"', 'foot = "FL_toe"\nknee_bends = "sideways"', r"unknown choice 'sideways'"),
        ('foot = "FL_toe"', 'foot = "FL_toe"\nfoot_radius_m = 0.0', r"foot_radius_m: expected a number above 0"),
        ('urdf = "a1/a1.urdf"', 'urdf = "a1/a2.urdf"', r"robot 'a1': urdf: expected a file"),
        ('urdf = "a1/a1.urdf"', 'urdf = "package://nowhere/a.urdf"', r"install the package 'nowhere'"),
    ],
)
def test_legs_that_do_not_fit_are_one_line(tmp_path: Path, old: str, new: str, said: str) -> None:
    with pytest.raises((ConfigError, SceneError), match=said) as caught:
        leg_geometries(load_robot(variant(tmp_path, old, new)))
    one_line(caught)


def test_swapped_legs_are_found() -> None:
    spec = load_robot("a1")
    assert spec.legs is not None
    legs = dataclasses.replace(spec.legs, front_left=spec.legs.rear_left, rear_left=spec.legs.front_left)
    with pytest.raises(ConfigError, match=r"legs\.front_left: expected x forward and y to the left.*swap the legs"):
        leg_geometries(dataclasses.replace(spec, legs=legs))


def test_a_robot_without_legs_walks_nowhere() -> None:
    with pytest.raises(ConfigError, match=r"robot 'a1': expected a table \[legs\], got none"):
        LeggedWorld(dataclasses.replace(load_robot("a1"), legs=None))


# -- a URDF that is broken --------------------------------------------------------------------------------------------

LINK = '<link name="{}"><inertial><mass value="1"/><inertia ixx="1" iyy="1" izz="1"/></inertial></link>'
JOINT = '<joint name="{0}" type="revolute"><parent link="{1}"/><child link="{2}"/><axis xyz="1 0 0"/></joint>'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<robot><link", "no valid XML"),
        ("", "no valid XML"),
        ("<sdf/>", "expected a URDF, <robot> at the top, got <sdf>"),
        ("<robot/>", "expected links that form one tree, got roots: none"),
        (f"<robot>{LINK.format('a')}{LINK.format('b')}</robot>", "roots: a, b"),
        (f"<robot>{LINK.format('a')}{JOINT.format('j', 'a', 'b')}</robot>", "joint 'j' has no link 'b'"),
        (
            f"<robot>{''.join(LINK.format(n) for n in 'abc')}{JOINT.format('j', 'b', 'c')}{JOINT.format('k', 'c', 'b')}"
            "</robot>",
            "a ring at 'j'",
        ),
        (
            f"<robot>{LINK.format('a')}</robot>".replace('"1"/><inertia', '"-1"/><inertia'),
            "mass: expected 0 kg or more",
        ),
        (f"<robot>{LINK.format('a')}</robot>".replace('"1"/><inertia', '"nan"/><inertia'), "expected a finite number"),
        (f"<robot>{LINK.format('a')}</robot>".replace('ixx="1"', 'ixx="-1"'), "inertia: expected moments of 0 or more"),
        (
            f"<robot>{LINK.format('a')}{LINK.format('b')}{JOINT.format('j', 'a', 'b')}</robot>".replace(
                "1 0 0", "0 0 0"
            ),
            "axis: expected a direction",
        ),
        (
            f"<robot>{LINK.format('a')}{LINK.format('b')}{JOINT.format('j', 'a', 'b')}</robot>".replace("1 0 0", "1 0"),
            "expected three numbers, got '1 0'",
        ),
    ],
)
def test_a_broken_urdf_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "broken.urdf"
    path.write_text(text)
    with pytest.raises((ConfigError, SceneError), match=re.escape(said)) as caught:
        read_urdf(path)
    assert "broken.urdf" in one_line(caught)


def test_a_urdf_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "broken.urdf"
    path.write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(SceneError, match="cannot be read"):
        read_urdf(path)
    with pytest.raises(SceneError, match="expected a file"):
        find_urdf(str(tmp_path / "none.urdf"))


# -- a robot of one's own ---------------------------------------------------------------------------------------------


def box(mass: float, x: float, y: float, z: float, at: str = "0 0 0") -> str:
    moments = [mass / 12 * (a * a + b * b) for a, b in ((y, z), (x, z), (x, y))]
    shape = f'<origin xyz="{at}"/><geometry><box size="{x} {y} {z}"/></geometry>'
    return (
        f'<inertial><origin xyz="{at}"/><mass value="{mass}"/>'
        f'<inertia ixx="{moments[0]}" iyy="{moments[1]}" izz="{moments[2]}"/></inertial>'
        f"<visual>{shape}</visual><collision>{shape}</collision>"
    )


def dog_urdf() -> str:
    """A plain quadruped of boxes: 10 kg, thighs of 0.2 m and shanks of 0.2 m, feet without spheres."""
    parts = [f'<link name="trunk">{box(6.0, 0.45, 0.2, 0.12)}</link>']
    for leg, x, y in (("lf", 0.2, 0.1), ("rf", 0.2, -0.1), ("lh", -0.2, 0.1), ("rh", -0.2, -0.1)):
        side = 0.06 if y > 0 else -0.06
        joints = (
            ("hip", "trunk", "hip", f"{x} {y} 0", "1 0 0", -1.0, 1.0),
            ("thigh", f"{leg}_hip", "thigh", f"0 {side} 0", "0 1 0", -1.5, 3.0),
            ("knee", f"{leg}_thigh", "shank", "0 0 -0.2", "0 1 0", -2.6, -0.3),
        )
        for name, parent, child, at, axis, low, high in joints:
            shape = box(0.4, 0.06, 0.06, 0.06) if name == "hip" else box(0.3, 0.03, 0.03, 0.18, "0 0 -0.1")
            parts.append(f'<link name="{leg}_{child}">{shape}</link>')
            parts.append(
                f'<joint name="{leg}_{name}" type="revolute"><parent link="{parent}"/><child link="{leg}_{child}"/>'
                f'<origin xyz="{at}"/><axis xyz="{axis}"/>'
                f'<limit lower="{low}" upper="{high}" effort="30" velocity="20"/></joint>'
            )
        parts.append(f'<link name="{leg}_foot"/>')
        parts.append(
            f'<joint name="{leg}_ankle" type="fixed"><parent link="{leg}_shank"/><child link="{leg}_foot"/>'
            '<origin xyz="0 0 -0.2"/></joint>'
        )
    return f'<robot name="dog">{"".join(parts)}</robot>'


def dog_toml(urdf: Path) -> str:
    lines = [
        'name = "dog"',
        f'urdf = "{urdf}"',
        "length_m = 0.6\nwidth_m = 0.4\nheight_m = 0.4\nvx_min_mps = -0.3\nvx_max_mps = 0.8\nvy_max_mps = 0.3",
        "yaw_rate_max_radps = 1.0\nlag_s = 0.16\n[legs]\nstance_height_m = 0.32",
    ]
    for place, leg in (("front_left", "lf"), ("front_right", "rf"), ("rear_left", "lh"), ("rear_right", "rh")):
        names = "\n".join(f'{key} = "{leg}_{key}"' for key in ("hip", "thigh", "knee", "foot"))
        lines.append(f"[legs.{place}]\n{names}\nfoot_radius_m = 0.025")
    return "\n".join(lines)


def test_a_robot_of_ones_own_stands_steps_and_walks(tmp_path: Path) -> None:
    (tmp_path / "dog.urdf").write_text(dog_urdf())
    (tmp_path / "dog.toml").write_text(dog_toml(tmp_path / "dog.urdf"))
    spec = load_robot(str(tmp_path / "dog.toml"))
    assert WalkingBody.of(spec).mass_kg == pytest.approx(6.0 + 4 * (0.4 + 0.3 + 0.3))
    world = LeggedWorld(spec)
    try:
        world.load(FREE)
        for _ in range(10):
            assert not world.advance((0.0, 0.0, 0.0), 0.1)
        assert world.feet_down == (True, True, True, True)
        assert world.base_height_m == pytest.approx(0.32, abs=0.03)
        lifted = np.zeros(4, bool)
        for _ in range(15):
            assert not world.advance((0.5, 0.0, 0.0), 0.1)
            lifted |= ~np.array(world.feet_down)
        assert lifted.all()
        x_m = world.x_m
        for _ in range(15):
            assert not world.advance((0.5, 0.0, 0.0), 0.1)
        assert (world.x_m - x_m) / 1.5 == pytest.approx(0.5, abs=0.1)
        assert abs(world.y_m) < 0.2
    finally:
        world.close()


def test_a_knee_that_bends_the_other_way_is_told(tmp_path: Path) -> None:
    """Its joint limits do not let the knee point forward; the message says where to look."""
    (tmp_path / "dog.urdf").write_text(dog_urdf())
    text = dog_toml(tmp_path / "dog.urdf").replace("foot_radius_m", 'knee_bends = "forward"\nfoot_radius_m', 1)
    (tmp_path / "dog.toml").write_text(text)
    with pytest.raises(ConfigError, match=r"legs\.front_left: expected a stance_height_m within reach.*knee_bends"):
        leg_geometries(load_robot(str(tmp_path / "dog.toml")))
