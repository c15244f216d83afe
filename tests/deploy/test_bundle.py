"""A bundle is used whole and unchanged, or refused in one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from deploy import bundle as bundles
from deploy.bundle import TOLERANCES, ParityRecording, load_bundle, load_parity, write_bundle
from deploy.verify import verify
from policies.bundle import encode_manifest
from policies.contract import BundleContract
from policies.registry import pretrained_dir
from robonav.errors import BundleError

NAMES = ("policy.onnx", "bundle.json", "parity.npz", "README.md")


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x01
    path.write_bytes(bytes(data))


def one_line(error: pytest.ExceptionInfo[BaseException]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def test_a_bundle_comes_back_as_it_was_written(tiny_bundle: Path, contract: BundleContract) -> None:
    loaded = load_bundle(tiny_bundle)
    assert loaded.contract == contract
    assert sorted(p.name for p in tiny_bundle.iterdir()) == sorted(NAMES)
    assert load_parity(loaded).ticks == 200 == loaded.parity.ticks
    assert loaded.sha256 == load_bundle(tiny_bundle).sha256


def test_verify_passes_a_good_bundle(tiny_bundle: Path) -> None:
    found = verify(tiny_bundle)
    assert found.max_abs_diff <= found.tolerance == 1e-4
    assert found.step_ms.count == 200
    json.dumps(found.to_json(), allow_nan=False)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("place", [0.0, 0.3, 0.5, 0.7, 0.999])
def test_a_flipped_bit_in_any_file_is_refused_with_its_name(
    tiny_bundle: Path, tmp_path: Path, name: str, place: float
) -> None:
    folder = tmp_path / "b"
    shutil.copytree(tiny_bundle, folder)
    flip(folder / name, int(place * (folder / name).stat().st_size))
    with pytest.raises(BundleError) as error:
        load_bundle(folder)
    assert name in one_line(error)


def test_every_byte_of_the_manifest_is_covered(tiny_bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "b"
    shutil.copytree(tiny_bundle, folder)
    raw = (folder / "bundle.json").read_bytes()
    for at in range(0, len(raw), 13):
        for mask in (0x01, 0x20, 0x80):
            changed = bytearray(raw)
            changed[at] ^= mask
            (folder / "bundle.json").write_bytes(bytes(changed))
            with pytest.raises(BundleError):
                load_bundle(folder)


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_file_is_named(tiny_bundle: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "b"
    shutil.copytree(tiny_bundle, folder)
    (folder / name).unlink()
    with pytest.raises(BundleError, match=name):
        load_bundle(folder)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such folder"):
        load_bundle(tmp_path / "nothing")


def rewrite(folder: Path, **changes: object) -> None:
    data = json.loads((folder / "bundle.json").read_text())
    body = {key: data[key] for key in ("contract", "files", "parity")}
    for key, value in changes.items():
        body[key] = {**body[key], **value}  # type: ignore[dict-item]
    (folder / "bundle.json").write_bytes(encode_manifest(**body))


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"contract": {"name": "renamed"}}, "metadata"),
        ({"contract": {"format": 99}}, "format"),
        ({"contract": {"colour": "red"}}, "colour"),
        ({"contract": {"states": []}}, "state.h"),
        ({"contract": {"states": [{"name": "h", "dtype": "float32", "shape": [1, 8]}]}}, "state.h"),
        ({"contract": {"inputs": []}}, "inputs"),
        ({"parity": {"ticks": "many"}}, "ticks"),
    ],
)
def test_a_contract_that_does_not_fit_the_graph_is_refused(
    tiny_bundle: Path, tmp_path: Path, changes: dict[str, object], word: str
) -> None:
    """The manifest's own hash is right here: it is its meaning that is wrong."""
    folder = tmp_path / "b"
    shutil.copytree(tiny_bundle, folder)
    rewrite(folder, **changes)
    with pytest.raises(BundleError, match=word):
        load_bundle(folder)


def test_a_bundle_from_before_a_key_had_its_default(tiny_bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "b"
    shutil.copytree(tiny_bundle, folder)
    robot = json.loads((folder / "bundle.json").read_text())["contract"]["robot"]
    assert robot["depth"].pop("mount_y_m") == 0.0
    rewrite(folder, contract={"robot": robot})
    assert load_bundle(folder).contract.robot.depth.mount_y_m == 0.0


def test_the_bundles_that_ship_load() -> None:
    folders = [path.parent for path in pretrained_dir().glob("*/bundle.json")]
    assert folders
    for folder in folders:
        assert load_bundle(folder).contract.name == folder.name
        assert b"stack_trace" not in (folder / "policy.onnx").read_bytes()  # which holds paths of some machine


def test_a_wide_tolerance_in_the_manifest_does_not_let_a_bundle_pass(
    tmp_path: Path,
    graph: bytes,
    contract: BundleContract,
    make_parity: Callable[..., ParityRecording],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parity = make_parity(graph, contract)
    parity.outputs["action"][17] += 0.01
    with monkeypatch.context() as wide:
        wide.setitem(TOLERANCES, "fp32", 1.0)
        assert write_bundle(tmp_path / "b", graph, contract, parity, "card").parity.tolerance == 1.0
    with pytest.raises(BundleError, match=r"at most 0\.0001"):
        verify(tmp_path / "b")


def test_verify_wants_200_ticks(
    tmp_path: Path, graph: bytes, contract: BundleContract, make_parity: Callable[..., ParityRecording]
) -> None:
    write_bundle(tmp_path / "b", graph, contract, make_parity(graph, contract, ticks=20), "card")
    with pytest.raises(BundleError, match="at least 200"):
        verify(tmp_path / "b")


@pytest.mark.parametrize("value", [0.01, np.nan])
def test_writing_refuses_a_graph_that_differs_from_torch_and_leaves_nothing(
    tmp_path: Path, graph: bytes, contract: BundleContract, make_parity: Callable[..., ParityRecording], value: float
) -> None:
    parity = make_parity(graph, contract)
    parity.outputs["value"][150] += value
    with pytest.raises(BundleError, match="onnxruntime against torch"):
        write_bundle(tmp_path / "b", graph, contract, parity, "card")
    assert list(tmp_path.iterdir()) == []


def test_writing_replaces_an_older_bundle_but_nothing_else(
    tmp_path: Path, graph: bytes, contract: BundleContract, make_parity: Callable[..., ParityRecording]
) -> None:
    parity = make_parity(graph, contract)
    write_bundle(tmp_path / "b", graph, contract, parity, "first")
    write_bundle(tmp_path / "b", graph, contract, parity, "second")
    assert (tmp_path / "b" / "README.md").read_text() == "second"
    assert [p.name for p in tmp_path.iterdir()] == ["b"]
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "thesis.txt").write_text("mine")
    with pytest.raises(BundleError, match="something else"):
        write_bundle(tmp_path / "own", graph, contract, parity, "card")
    assert (tmp_path / "own" / "thesis.txt").read_text() == "mine"


def test_writing_that_fails_midway_keeps_the_older_bundle(
    tmp_path: Path,
    graph: bytes,
    contract: BundleContract,
    make_parity: Callable[..., ParityRecording],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parity = make_parity(graph, contract)
    write_bundle(tmp_path / "b", graph, contract, parity, "first")

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bundles.os, "fsync", full)
    with pytest.raises(BundleError, match="No space left"):
        write_bundle(tmp_path / "b", graph, contract, parity, "second")
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == ["b"]
    assert (load_bundle(tmp_path / "b").folder / "README.md").read_text() == "first"


def test_a_recording_with_other_shapes_is_refused(
    tmp_path: Path, graph: bytes, contract: BundleContract, make_parity: Callable[..., ParityRecording]
) -> None:
    parity = make_parity(graph, contract)
    wrong = ParityRecording({**parity.inputs, "scan_m": parity.inputs["scan_m"][:, :, :64]}, parity.outputs)
    with pytest.raises(BundleError, match="scan_m"):
        write_bundle(tmp_path / "b", graph, contract, wrong, "card")
    missing = ParityRecording({k: v for k, v in parity.inputs.items() if k != "reset"}, parity.outputs)
    with pytest.raises(BundleError, match="reset"):
        write_bundle(tmp_path / "b", graph, contract, missing, "card")
