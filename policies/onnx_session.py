"""onnxruntime sessions: one thread, no spinning, and the best provider that there is, said plainly.

Providers are tried in the order TensorRT, CUDA, CPU. Who asks for a GPU and would get the CPU gets an error instead,
unless a fallback is allowed. TensorRT's engines are cached under a folder of their own for each model, onnxruntime and
GPU, and are built by ``robonav verify``, never on the first command.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from robonav.errors import BundleError, MissingDependencyError, explain

Provider = Literal["auto", "tensorrt", "cuda", "cpu"]
PROVIDERS: dict[str, str] = {
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "cpu": "CPUExecutionProvider",
}  # in the order in which they are tried
ENVIRONMENT = "ROBONAV_PROVIDER"


@dataclass(frozen=True, slots=True)
class Runtime:
    """Where graphs run."""

    provider: Provider = "auto"
    """The provider that is asked for; "auto" takes the first that works."""
    allow_fallback: bool = False
    """Whether the CPU will do where a GPU was asked for."""
    cache: Path | None = None
    """Folder of TensorRT's engines; ``~/.cache/robonav/engines`` if None."""
    half: bool = False
    """Whether TensorRT may compute in half precision."""

    def __post_init__(self) -> None:
        """Checks the provider.

        Raises:
            BundleError: there is none of that name.
        """
        if self.provider not in get_args(Provider):
            raise BundleError(explain("provider", f"one of {', '.join(get_args(Provider))}", repr(self.provider)))

    @classmethod
    def of_environment(cls, environment: Mapping[str, str] | None = None) -> Runtime:
        """What ``ROBONAV_PROVIDER`` says, such as "cpu" or "cuda"; a "?" behind it allows a fallback."""
        said = (os.environ if environment is None else environment).get(ENVIRONMENT, "auto")
        return cls(said.rstrip("?"), said.endswith("?"))  # type: ignore[arg-type]


CPU = Runtime("cpu")


def open_session(model: bytes, where: str, runtime: Runtime | None = None) -> Any:
    """A session on one thread.

    Raises:
        BundleError: no ONNX graph that onnxruntime loads, or a GPU was asked for and there is none.
        MissingDependencyError: onnxruntime is not installed.
    """
    ort, runtime = import_onnxruntime(), runtime or CPU
    wanted = _wanted(ort, runtime, model)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.use_deterministic_compute = True
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(model, options, providers=wanted)
    except Exception as error:  # noqa: BLE001  onnxruntime's errors share no other base class
        reason = str(error).splitlines()[0][:200]
        raise BundleError(explain(where, "an ONNX graph that onnxruntime loads", reason, "export it again")) from None
    _check_granted(ort, session.get_providers()[0], runtime)
    return session


def import_onnxruntime() -> Any:
    """The package.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        import onnxruntime
    except ImportError:
        do = "pip install 'robonav[runtime-cpu]'"
        raise MissingDependencyError(explain("bundle", "onnxruntime installed", "no such package", do)) from None
    return onnxruntime


def statement(session: Any) -> str:
    """What a session runs on, for people: ``CPUExecutionProvider, onnxruntime 1.23.2 (also here: none)``."""
    ort = import_onnxruntime()
    used = session.get_providers()[0]
    others = [name for name in PROVIDERS.values() if name in ort.get_available_providers() and name != used]
    return f"{used}, onnxruntime {ort.__version__} (also here: {', '.join(others) or 'none'})"


def engine_folder(model: bytes, runtime: Runtime) -> Path:
    """Where TensorRT's engine of a model lies: by its hash, onnxruntime's version and the GPU's name."""
    root = runtime.cache or Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "robonav" / "engines"
    name = f"{hashlib.sha256(model).hexdigest()[:16]}-ort{import_onnxruntime().__version__}-{gpu_name()}"
    return root / (name + ("-half" if runtime.half else ""))


def gpu_name() -> str:
    """The first GPU's name as a folder's name; "none" where nobody tells."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return "none"
    asked = [tool, "--query-gpu=name", "--format=csv,noheader"]
    try:
        said = subprocess.run(asked, capture_output=True, text=True, timeout=5, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return "none"
    name = said.splitlines()[0] if said.strip() else "none"
    return "".join(c if c.isalnum() else "-" for c in name).strip("-")


def _wanted(ort: Any, runtime: Runtime, model: bytes) -> list[Any]:
    """Providers with their options, best first."""
    here = ort.get_available_providers()
    names = list(PROVIDERS)
    first = 0 if runtime.provider == "auto" else names.index(runtime.provider)
    wanted: list[Any] = []
    for name in names[first:]:
        if PROVIDERS[name] not in here:
            continue
        if name == "tensorrt":
            folder = engine_folder(model, runtime)
            folder.mkdir(parents=True, exist_ok=True)
            cached = {"trt_engine_cache_enable": True, "trt_engine_cache_path": str(folder)}
            wanted.append((PROVIDERS[name], {**cached, "trt_fp16_enable": runtime.half}))
        else:
            wanted.append(PROVIDERS[name])
    return wanted or [PROVIDERS["cpu"]]


def _check_granted(ort: Any, granted: str, runtime: Runtime) -> None:
    """Raises BundleError when another provider was asked for than was granted, and no fallback is allowed."""
    if runtime.provider == "auto" or runtime.allow_fallback or granted == PROVIDERS[runtime.provider]:
        return
    here = ", ".join(ort.get_available_providers())
    do = "install robonav[runtime-gpu] alone (never beside runtime-cpu), or allow a fallback"
    raise BundleError(explain(f"provider {runtime.provider}", PROVIDERS[runtime.provider], f"{granted} of {here}", do))
