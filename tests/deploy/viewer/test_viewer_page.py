"""The page, driven in real headless Chromium: slider, keys, events, two logs, narrow, dark, and what a log lacks."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deploy import wire
from deploy.viewer.build import view, write_page

pytestmark = pytest.mark.xdist_group("browser")
Open = Callable[..., Any]


@pytest.fixture(scope="module")
def drive(make_log: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    page = tmp_path_factory.mktemp("pages") / "drive.html"
    write_page([view(make_log("drive.mcap"))], page)
    return page


@pytest.fixture(scope="module")
def beside(make_log: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    page = tmp_path_factory.mktemp("pages") / "beside.html"
    logs = [make_log("first.mcap"), make_log("second.mcap", seconds=12.0, depth=False)]
    write_page([view(log) for log in logs], page)
    return page


def ink(tab: Any, selector: str) -> int:
    """How many different colours a canvas shows."""
    script = """s => { const c = document.querySelector(s);
        const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
        return new Set(new Uint32Array(d.buffer)).size; }"""
    return int(tab.page.evaluate(script, selector))


def test_the_slider_moves_through_the_log(drive: Path, open_page: Open) -> None:
    tab = open_page(drive)
    assert tab.at() == 0.0
    box = tab.page.locator("#time").bounding_box()
    tab.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    tab.settle()
    assert tab.at() == pytest.approx(3.99, abs=0.05)
    assert tab.page.inner_text("#clock").startswith(f"{tab.at():.2f} s")
    assert re.search(r"of 7\.98 seconds", tab.page.get_attribute("#time", "aria-valuetext"))


def test_every_key_does_what_it_says(drive: Path, open_page: Open) -> None:
    tab = open_page(drive)
    assert tab.press("ArrowRight") == pytest.approx(0.1, abs=1e-4)
    assert tab.press("ArrowRight") == pytest.approx(0.2, abs=1e-4)
    assert tab.press("ArrowLeft") == pytest.approx(0.1, abs=1e-4)
    assert tab.press("Shift+ArrowRight") == pytest.approx(1.1, abs=1e-4)
    assert tab.press("Shift+ArrowLeft") == pytest.approx(0.1, abs=1e-4)
    assert tab.press("End") == pytest.approx(7.98, abs=1e-4)
    assert tab.press("ArrowRight") == pytest.approx(7.98, abs=1e-4)
    assert tab.press("Home") == 0.0
    assert tab.press("ArrowLeft") == 0.0
    before = tab.page.input_value("#speed")
    tab.press(".")
    assert float(tab.page.input_value("#speed")) == 2 * float(before)
    tab.press("?")
    assert tab.page.is_visible("#help")
    tab.press("Escape")
    assert not tab.page.is_visible("#help")
    tab.press("f")
    assert tab.page.get_attribute("#follow", "aria-pressed") == "true"


def test_space_plays_at_the_chosen_speed_and_stops_at_the_end(drive: Path, open_page: Open) -> None:
    tab = open_page(drive)
    tab.page.select_option("#speed", "8")
    tab.page.evaluate("document.activeElement.blur()")
    tab.page.keyboard.press(" ")
    assert tab.page.get_attribute("#play", "aria-label") == "Pause"
    tab.page.wait_for_selector("#play[aria-label=Play]")
    assert tab.at() == pytest.approx(7.98, abs=1e-3)
    tab.page.focus("#play")
    tab.page.keyboard.press(" ")  # the button's own key: once, not twice
    assert tab.page.get_attribute("#play", "aria-label") == "Pause"


def test_n_and_p_jump_through_the_events(drive: Path, open_page: Open) -> None:
    tab = open_page(drive)
    found = [(round(tab.press("n"), 1), tab.page.inner_text("#now-event").split(":")[0]) for _ in range(3)]
    assert found == [(2.0, "stop"), (4.0, "late tick"), (5.0, "near miss")]
    assert tab.press("n") == pytest.approx(5.0, abs=1e-3)
    assert "no event" in tab.page.inner_text("#now-event")
    assert tab.press("p") == pytest.approx(4.0, abs=0.01)
    tab.page.click("#kinds button:has-text('late')")
    tab.page.evaluate("document.activeElement.blur()")
    tab.press("Home")
    assert [round(tab.press("n"), 1) for _ in range(2)] == [2.0, 5.0]
    assert tab.page.locator("#events button").count() == 2


def test_what_the_governor_did_is_told_at_its_time(drive: Path, open_page: Open) -> None:
    tab = open_page(drive)
    names = tab.page.locator("#lane-names button").all_inner_texts()
    assert [re.sub(r"\s+", " ", n).strip() for n in names] == ["events 3", "stopped: obstacle 1.0 s", "speed 7.0 s"]
    for moment, reason in ((2.5, "stopped: obstacle"), (6.0, "speed")):
        tab.page.evaluate(
            "t => { const s = document.getElementById('time'); s.value = t; s.dispatchEvent(new Event('input')); }",
            moment,
        )
        tab.settle()
        row = tab.page.locator("#readout tr", has_text="Governor").first.inner_text()
        assert reason in row


def test_all_is_drawn_and_changes_with_time(drive: Path, open_page: Open) -> None:
    tab = open_page(drive)
    for selector in (".map canvas", "#lanes", "#depth canvas", "[data-curve=vx] canvas", "[data-curve=value] canvas"):
        assert ink(tab, selector) > 3, selector
    picture = "document.querySelector('.map canvas').toDataURL()"
    before = tab.page.evaluate(picture)
    tab.press("End")
    assert tab.page.evaluate(picture) != before
    at_end = tab.page.evaluate(picture)
    tab.page.click("[data-layer=scan]")
    tab.settle()
    assert tab.page.evaluate(picture) != at_end


def test_words_of_a_log_are_no_markup(drive: Path, open_page: Open) -> None:
    tab = open_page(drive)
    assert "room <b>&amp;" in tab.page.inner_text("#facts")


def test_two_logs_stand_beside_each_other(beside: Path, open_page: Open) -> None:
    tab = open_page(beside)
    assert tab.page.locator(".map canvas").count() == 2
    assert tab.page.locator(".map figcaption").all_inner_texts() == ["A\nfirst.mcap", "B\nsecond.mcap"]
    assert tab.press("End") == pytest.approx(11.98, abs=1e-3)
    assert tab.page.locator("#readout thead th").all_inner_texts()[1:] == ["A first.mcap", "B second.mcap"]
    assert "|" in tab.page.inner_text("[data-curve=vx] .key")
    assert tab.page.locator("#events button").count() == 6


def test_a_phones_width_scrolls_one_way_only(drive: Path, beside: Path, open_page: Open) -> None:
    for page in (drive, beside):
        tab = open_page(page, width=375, height=740, has_touch=True)
        assert tab.page.evaluate("document.documentElement.scrollWidth") <= 375
        for selector in ("#play", "#time", "#speed", ".map canvas"):
            box = tab.page.locator(selector).first.bounding_box()
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= 375
            assert box["height"] > 15
        tab.page.locator("[data-curve=latency]").scroll_into_view_if_needed()
        assert tab.page.locator("#play").is_visible()
        tab.page.tap("#next")
        tab.settle()
        assert tab.at() == pytest.approx(2.0, abs=0.01)


def test_dark_follows_the_system_and_the_switch(drive: Path, open_page: Open) -> None:
    def background(tab: Any) -> str:
        return str(tab.page.evaluate("getComputedStyle(document.body).backgroundColor"))

    light, dark = open_page(drive, color_scheme="light"), open_page(drive, color_scheme="dark")
    assert background(light) != background(dark)
    middle = "const c = document.querySelector('.map canvas'); const m = c.getContext('2d')"
    pixel = (
        f"(() => {{ {middle}.getImageData(c.width / 2 + 60, c.height / 2, 1, 1).data; return m[0] + m[1] + m[2]; }})()"
    )
    assert light.page.evaluate(pixel) > dark.page.evaluate(pixel)
    for _ in range(2):  # light, then dark
        light.press("t")
    assert background(light) == background(dark)
    light.press("t")
    assert background(light) != background(dark)


def test_it_can_be_used_without_a_mouse(drive: Path, open_page: Open) -> None:
    tab = open_page(drive)
    label = "e.getAttribute('aria-label') || e.textContent.trim()"
    reached = []
    for _ in range(60):
        tab.page.keyboard.press("Tab")
        reached.append(tab.page.evaluate(f"(e => [e.id || e.tagName, {label}])(document.activeElement)"))
    names = [name for name, _ in reached]
    for name in ("theme", "zoom-in", "follow", "play", "next", "speed", "time"):
        assert name in names
    assert names.index("theme") < names.index("zoom-in") < names.index("play") < names.index("time")
    assert all(word for _, word in reached)
    controls = "[...document.querySelectorAll('button, select, input, canvas[role]')]"
    assert tab.page.evaluate(f"{controls}.filter(e => !({label})).length") == 0
    tab.page.focus("#time")
    assert tab.press("ArrowRight") == pytest.approx(0.1, abs=1e-4)


@pytest.mark.parametrize(
    ("lacks", "curve", "word"),
    [
        (wire.ObservationMsg, "clearance", "holds no observation"),
        (wire.DecisionMsg, "latency", ""),
        (wire.DecisionMsg, "value", "holds no decision"),
        (wire.GovernedMsg, "uncertainty", "dreams.onnx"),
        (object, "vx", "Not in this log"),
    ],
)
def test_a_log_that_lacks_something_says_so(
    lacks: Any, curve: str, word: str, make_log: Any, tmp_path: Path, open_page: Open
) -> None:
    log = make_log(f"lacks-{curve}.mcap", seconds=1.0, keep=lambda m: not isinstance(m, lacks))
    write_page([view(log)], tmp_path / "a.html")
    tab = open_page(tmp_path / "a.html")
    if word:
        assert word in tab.page.inner_text(f"[data-curve={curve}] .empty")
    tab.press("n")
    tab.press("End")
    assert not tab.page.is_visible("#warning") or "fail" not in tab.page.inner_text("#warning")


def test_a_log_without_a_camera_or_lidar_says_so(make_log: Any, tmp_path: Path, open_page: Open) -> None:
    write_page([view(make_log("blind.mcap", seconds=1.0, depth=False, scan=False))], tmp_path / "a.html")
    tab = open_page(tmp_path / "a.html")
    assert "without a camera" in tab.page.inner_text("#depth")
    assert "no lidar" in tab.page.inner_text("[data-curve=clearance]")
    assert tab.page.is_disabled("[data-layer=scan]")


def test_damage_and_broken_data_are_told(make_log: Any, tmp_path: Path, open_page: Open) -> None:
    log = make_log("cut.mcap", seconds=4.0)
    data = log.read_bytes()
    log.write_bytes(data[: len(data) * 2 // 3])
    write_page([view(log)], tmp_path / "cut.html")
    tab = open_page(tmp_path / "cut.html")
    assert "truncated" in tab.page.inner_text("#warning")
    text = (tmp_path / "cut.html").read_text()
    broken = re.sub(r'(application/gzip">)[\w+/]{400}', lambda m: m[1] + "A" * 400, text, count=1)
    (tmp_path / "broken.html").write_text(broken)
    tab = open_page(tmp_path / "broken.html", wait=False)
    tab.page.wait_for_selector("#warning:not([hidden])")
    assert "cannot be shown" in tab.page.inner_text("#warning")


@pytest.mark.slow
def test_two_minutes_with_depth_are_small_and_quick(make_log: Any, tmp_path: Path, open_page: Open) -> None:
    page = tmp_path / "long.html"
    assert write_page([view(make_log("long.mcap", seconds=120.0))], page) < 15_000_000
    tab = open_page(page)
    paint = tab.page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    assert paint < 1000
    # Of the processor, not of the wall: on a machine that others use as well fewer frames are shown, by no fault here.
    script = """async frames => { const s = document.getElementById('time'); for (let i = 0; i < frames; i++) {
        s.value = i / frames * s.max;
        s.dispatchEvent(new Event('input'));
        await new Promise(requestAnimationFrame); } }"""
    session = tab.page.context.browser.new_browser_cdp_session()

    def seconds() -> float:
        return sum(p["cpuTime"] for p in session.send("SystemInfo.getProcessInfo")["processInfo"])

    tab.page.evaluate(script, 20)
    before = seconds()
    tab.page.evaluate(script, 120)
    assert (seconds() - before) / 120 < 1 / 30
