from __future__ import annotations

import pytest

from robonav.cli import bench
from robonav.cli.args import UsageError
from robonav.errors import ConfigError


@pytest.mark.parametrize("name", list(bench.BENCHMARKS))
def test_each_benchmark_has_help_with_examples(name, capsys):
    with pytest.raises(SystemExit) as stop:
        bench.main([name, "--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert f"usage: robonav bench {name}" in out
    assert f"robonav bench {name} --" in out


def test_an_unknown_benchmark_names_the_nearest():
    with pytest.raises(UsageError, match=r"bench: expected a benchmark, got 'sm'; did you mean 'ssm'\?"):
        bench.main(["sm"])


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["ssm", "--threads", "0"], "--threads: expected at least 1, got 0"),
        (["ssm", "--layers", "mamba9"], "layers: expected one of"),
        (["memory", "--tasks", "partiy"], "did you mean 'parity'"),
    ],
)
def test_bad_arguments_are_named(argv, said):
    with pytest.raises((UsageError, ConfigError)) as error:
        bench.main(argv)
    assert said in str(error.value)


def test_a_json_file_of_something_else_is_not_overwritten(tmp_path):
    file = tmp_path / "notes.json"
    file.write_text("[1, 2]")
    with pytest.raises(UsageError, match="--json: expected figures of an earlier call"):
        bench.main(["memory", "--budget", "quick", "--json", str(file)])
    assert file.read_text() == "[1, 2]"
    file.write_text('{"suites": {}}')
    with pytest.raises(UsageError, match="--json: expected figures of bench memory"):
        bench.main(["memory", "--budget", "quick", "--json", str(file)])
    assert file.read_text() == '{"suites": {}}'
