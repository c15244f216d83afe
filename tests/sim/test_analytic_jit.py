"""Compiled code that a machine kept is used only as long as every file that it was made of is as it was."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import sim.analytic.batch
import sim.analytic.situation
from sim.analytic import jit

HELPER = "from sim.analytic.jit import inner\n\n\n@inner\ndef number(x: int) -> int:\n    return x + {}\n"
CALLER = """
from sim.analytic.jit import kernel
from sim.analytic.helper import number


@kernel
def run(x: int) -> int:
    return number(x)


print(run(1), sum(run.stats.cache_hits.values()))
"""


def test_kernels_carry_the_stamp_of_all_sources() -> None:
    for each in (sim.analytic.batch._advance, sim.analytic.batch._scan, sim.analytic.situation._update):
        assert each._cache._cache_file._source_stamp[1] == jit.sources_stamp()  # numba's own names may change


def test_a_change_in_a_helper_is_compiled_anew(tmp_path: Path) -> None:
    package = tmp_path / "sim" / "analytic"
    package.mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").touch()
    shutil.copy(str(jit.__file__), package / "jit.py")
    (package / "caller.py").write_text(CALLER)

    def run() -> list[int]:
        done = subprocess.run(
            [sys.executable, "-m", "sim.analytic.caller"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(tmp_path), "NUMBA_CACHE_DIR": str(tmp_path / "cache")},
            capture_output=True,
            text=True,
            check=True,
        )
        return [int(word) for word in done.stdout.split()]

    (package / "helper.py").write_text(HELPER.format(1))
    assert run() == [2, 0]
    assert run() == [2, 1]
    (package / "helper.py").write_text(HELPER.format(20))
    assert run() == [21, 0]
