"""Which provider a bundle runs on, and steps that allocate nothing."""

from __future__ import annotations

import gc
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from policies import onnx_session
from policies.bundle import load_bundle
from policies.bundle_policy import load
from policies.onnx_session import ENVIRONMENT, PROVIDERS, Runtime, _wanted, engine_folder, gpu_name
from robonav.errors import BundleError

WARM_UP, STEPS = 200, 3000


class Package:
    """onnxruntime as it is on another machine."""

    __version__ = "1.23.2"

    def __init__(self, *providers: str) -> None:
        self._providers = [*(PROVIDERS[name] for name in providers), PROVIDERS["cpu"]]

    def get_available_providers(self) -> list[str]:
        return self._providers


def names(wanted: list[object]) -> list[str]:
    return [entry[0] if isinstance(entry, tuple) else entry for entry in wanted]  # type: ignore[misc]


def test_providers_are_tried_in_order(tmp_path: Path) -> None:
    package = Package("cuda", "tensorrt")
    auto = _wanted(package, Runtime("auto", cache=tmp_path), b"model")
    assert names(auto) == [PROVIDERS["tensorrt"], PROVIDERS["cuda"], PROVIDERS["cpu"]]
    assert names(_wanted(package, Runtime("cuda"), b"model")) == [PROVIDERS["cuda"], PROVIDERS["cpu"]]
    assert names(_wanted(package, Runtime("cpu"), b"model")) == [PROVIDERS["cpu"]]
    assert names(_wanted(Package(), Runtime("auto"), b"model")) == [PROVIDERS["cpu"]]


def test_engines_are_cached_by_model_version_and_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = Runtime("tensorrt", cache=tmp_path, half=True)
    options = _wanted(Package("tensorrt"), runtime, b"model")[0][1]
    folder = Path(options["trt_engine_cache_path"])
    assert folder.parent == tmp_path
    assert folder.is_dir()
    assert options["trt_fp16_enable"]
    seen = {engine_folder(b"model", runtime), engine_folder(b"other", runtime)}
    seen.add(engine_folder(b"model", Runtime("tensorrt", cache=tmp_path)))
    monkeypatch.setattr(onnx_session, "gpu_name", lambda: "Orin")
    seen.add(engine_folder(b"model", runtime))
    monkeypatch.setattr(onnx_session, "import_onnxruntime", lambda: Package())
    seen.add(engine_folder(b"model", runtime))
    assert len(seen) == 5


def test_a_missing_gpu_is_an_error_unless_it_is_allowed(tiny_bundle: Path) -> None:
    if PROVIDERS["cuda"] in onnx_session.import_onnxruntime().get_available_providers():
        pytest.skip("there is a GPU")
    line = r"provider cuda: expected CUDAExecutionProvider, got CPUExecutionProvider.*runtime-gpu"
    with pytest.raises(BundleError, match=line) as error:
        load_bundle(tiny_bundle, Runtime("cuda"))
    assert "\n" not in str(error.value)
    assert "CPUExecutionProvider, onnxruntime" in load_bundle(tiny_bundle, Runtime("cuda", True)).step.runs_on


def test_the_environment_chooses(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Runtime.of_environment({}) == Runtime("auto")
    assert Runtime.of_environment({ENVIRONMENT: "cuda?"}) == Runtime("cuda", True)
    monkeypatch.setenv(ENVIRONMENT, "cpu")
    assert load_bundle(tiny_bundle).runtime == Runtime("cpu")
    monkeypatch.setenv(ENVIRONMENT, "gpu")
    with pytest.raises(BundleError, match="provider: expected one of auto, tensorrt, cuda, cpu, got 'gpu'"):
        load_bundle(tiny_bundle)


def test_no_gpu_has_a_name_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_session.shutil, "which", lambda _: None)
    assert gpu_name() == "none"


def test_in_place_steps_are_the_same_steps(tiny_bundle: Path) -> None:
    bundle = load_bundle(tiny_bundle)
    rng, steps = np.random.default_rng(0), (bundle.step, bundle.step.in_place())
    states = [bundle.step.initial_state() for _ in steps]
    for tick in range(20):
        inputs = {
            t.name: (rng.random(t.shape) * 3).astype(t.dtype) for t in bundle.contract.inputs if t.name != "reset"
        } | {"reset": np.array([float(tick == 0)], np.float32)}
        outputs = []
        for i, step in enumerate(steps):
            states[i], answer = step.step(states[i], inputs)
            outputs.append({name: values.copy() for name, values in (answer | states[i]).items()})
        for name, values in outputs[0].items():
            assert np.array_equal(values, outputs[1][name])
    assert np.abs(states[0]["h"]).max() > 0
    elsewhere = {name: values.copy() for name, values in states[1].items()}
    other = bundle.step.in_place()
    assert np.array_equal(other.step(elsewhere, inputs)[0]["h"], steps[0].step(states[0], inputs)[0]["h"])


def test_memory_stays_flat_over_thousands_of_steps(tiny_bundle: Path) -> None:
    bundle = load(tiny_bundle, in_place=True).bundle
    step, state = bundle.step.in_place(), bundle.step.initial_state()
    inputs = {t.name: np.zeros(t.shape, t.dtype) for t in bundle.contract.inputs}

    def run(count: int) -> None:
        nonlocal state
        for _ in range(count):
            state, _outputs = step.step(state, inputs)

    run(WARM_UP)
    gc.collect()
    tracemalloc.start()
    run(WARM_UP)
    for _ in range(3):  # what other threads of the tests keep for themselves comes once, what steps keep every time
        held, pages = tracemalloc.get_traced_memory()[0], _resident_pages()
        run(STEPS)
        grown, more = tracemalloc.get_traced_memory()[0] - held, _resident_pages() - pages
        if grown < 10_000:
            break
    tracemalloc.stop()
    assert grown < 10_000  # 3 bytes a step; one small array kept would be a hundred times that
    assert more * 4096 < 1_000_000


def _resident_pages() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1])


def test_a_session_leaves_the_thread_its_small_numbers(tiny_bundle: Path) -> None:
    step = load_bundle(tiny_bundle).step
    step.step(step.initial_state(), {t.name: np.zeros(t.shape, t.dtype) for t in step.contract.inputs})
    assert np.array([2.0**-140], np.float32)[0] * np.float32(0.5) > 0  # not flushed to zero
