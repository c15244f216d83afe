from __future__ import annotations

import json
from pathlib import Path

import pytest

from robonav.cli import tune
from robonav.cli.args import UsageError
from robonav.errors import ConfigError, RobonavError

pytest.importorskip("pybullet")


def test_tuning_writes_trials_and_a_preset_that_loads(tmp_path: Path, capsys) -> None:
    from policies.baselines import load_baseline

    search = tmp_path / "search.toml"
    search.write_text(
        'policy = "dwa-tracking"\nsuites = ["empty"]\ntrials = 3\nepisodes = 2\n[ranges]\nhorizon_s = [1.0, 3.0]\n'
    )
    out, trials = tmp_path / "best.toml", tmp_path / "trials.json"
    argv = ["--search", str(search), "--out", str(out), "--json", str(trials), "--workers", "1"]
    assert tune.main(argv) == 0
    best = json.loads(capsys.readouterr().out)
    assert len(json.loads(trials.read_text())["trials"]) == 3
    before = trials.read_text()
    assert tune.main(argv) == 0 and trials.read_text() == before  # nothing ran again: its seconds are the same
    tuned = load_baseline(str(out))
    assert tuned.dwa.tracking and tuned.dwa.horizon_s == best["values"]["horizon_s"]


def test_what_was_measured_is_what_the_preset_says(tmp_path: Path) -> None:
    from policies.baselines import load_baseline

    preset, search, out = (tmp_path / f"{name}.toml" for name in ("own", "search", "best"))
    preset.write_text(
        'description = "my \\"fast\\" one"\nmethod = "dwa"\n[dwa]\ntracking = true\n'
        "[dwa.situation]\nreplan_period_s = 0.1\n"
    )
    search.write_text(f'policy = "{preset}"\nsuites = ["empty"]\n[ranges]\nhorizon_s = [1.0, 3.0]\n')
    assert tune.main(["--search", str(search), "--out", str(out), "--trials", "1", "--episodes", "1"]) == 0
    tuned, before = load_baseline(str(out)), load_baseline(str(preset))
    assert tuned.dwa == before.dwa and tuned.dwa.situation.replan_period_s == 0.1
    assert tuned.description == 'my "fast" one, tuned'


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--trials", "0"], "at least one of each"),
        (["--episodes", "0"], "at least one of each"),
        (["--workers", "0"], "--workers: expected at least 1"),
        (["--out", "/proc/best.toml"], "/proc"),
    ],
)
def test_bad_numbers_and_places_are_told_before_the_search(flags: list[str], said: str) -> None:
    with pytest.raises(RobonavError, match=said):
        tune.main(["--search", "dwa", *flags])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('policy = "dwa"\nsuites = ["empty"]\n[ranges]\nhorizn_s = [1.0, 3.0]\n', "parameters of dwa, got horizn_s"),
        ('policy = "dwb"\nsuites = ["empty"]\n[ranges]\nhorizon_s = [1.0, 3.0]\n', "did you mean 'dwa'"),
        ('policy = "dwa"\nsuites = ["empty"]\n[ranges]\nhorizon_s = [3.0, 1.0]\n', "ranges.horizon_s"),
    ],
)
def test_bad_searches_are_refused(tmp_path: Path, text: str, said: str) -> None:
    search = tmp_path / "search.toml"
    search.write_text(text)
    with pytest.raises(ConfigError, match=said):
        tune.main(["--search", str(search)])


def test_a_file_of_another_search_is_refused_and_stays(tmp_path: Path) -> None:
    search = tmp_path / "search.toml"
    search.write_text(
        'policy = "dwa"\nsuites = ["empty"]\ntrials = 1\nepisodes = 1\n[ranges]\nhorizon_s = [1.0, 3.0]\n'
    )
    trials = tmp_path / "trials.json"
    argv = ["--search", str(search), "--json", str(trials), "--workers", "1"]
    assert tune.main(argv) == 0
    before = trials.read_text()
    with pytest.raises(UsageError, match="seed: expected 1, got 0"):
        tune.main([*argv, "--seed", "1"])
    with pytest.raises(UsageError, match="--delay-ms: expected 0 or more"):
        tune.main([*argv, "--delay-ms", "-1"])
    assert trials.read_text() == before
    for other, expected in (("[]", "figures"), ("{", "figures"), ('{"trials": 1}', "trials")):
        trials.write_text(other)
        with pytest.raises(UsageError, match=f"{expected} of an earlier call"):
            tune.main(argv)
