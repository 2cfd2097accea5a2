"""The pages in a real browser: nothing fails or is fetched, all is read by keyboard and by name."""

import json
import os
import threading
import time

import pytest

from tiltflow.report.watch import make_server

TAB, LEFT, RIGHT = 9, 37, 39


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_opens_without_complaint_and_asks_for_nothing(browser, report, scheme):
    browser.open(report.as_uri(), scheme)
    assert browser.complaints == []
    assert [url for url in browser.requests if not url.startswith("data:")] == [report.as_uri()]
    colour = browser.run("getComputedStyle(document.body).backgroundColor")
    assert colour == {"light": "rgb(246, 248, 250)", "dark": "rgb(13, 17, 23)"}[scheme]
    # What is written must be seen: ink and paper differ by far in both schemes.
    ink = browser.run("getComputedStyle(document.body).color")
    both = [[int(part) for part in each[4:-1].split(",")] for each in (ink, colour)]
    assert abs(sum(both[0]) - sum(both[1])) > 400
    assert browser.run("document.querySelectorAll('.plane svg path.points').length") == 2
    assert browser.run("document.querySelectorAll('.plane svg path.contour-line').length") == 2
    assert browser.run("document.querySelectorAll('.panels svg').length") == 4
    pictures = browser.run("[...document.images].every((it) => it.naturalWidth > 100 && it.alt)")
    assert pictures


def test_without_a_script_the_pictures_are_there(browser, report):
    browser.send("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.send("Page.navigate", url=report.as_uri())
        browser.wait("document.readyState === 'complete' && document.images.length === 5")
        assert browser.run("[...document.querySelectorAll('.chart')].every((it) => it.hidden)")
        assert browser.run("[...document.images].every((it) => it.offsetHeight > 20)")
    finally:
        browser.send("Emulation.setScriptExecutionDisabled", value=False)


def test_a_narrow_screen_does_not_scroll_sideways(browser, report):
    browser.open(report.as_uri(), width=360)
    wide = (
        "[...document.querySelectorAll('body *')].filter((it) => !it.closest('.scroll, svg')"
        " && it.getBoundingClientRect().right > 360).map((it) => it.outerHTML.slice(0, 90))"
    )
    assert browser.run(wide) == []
    assert browser.run("document.documentElement.scrollWidth <= 360")
    assert browser.run("document.querySelector('.plane svg').clientWidth <= 330")


def test_everything_that_can_be_used_has_a_name_and_is_reached_by_tab(browser, report):
    browser.open(report.as_uri())
    nodes = browser.send("Accessibility.getFullAXTree")["nodes"]
    focusable = [
        node
        for node in nodes
        if any(p["name"] == "focusable" and p["value"]["value"] for p in node.get("properties", []))
        and node["role"]["value"] not in ("RootWebArea", "option", "MenuListOption")
    ]
    nameless = [node for node in focusable if not node.get("name", {}).get("value", "").strip()]
    assert nameless == []
    roles = [node["role"]["value"] for node in focusable]
    assert roles.count("application") == 2 and roles.count("combobox") == 2
    assert roles.count("checkbox") == 3 and roles.count("button") == 6
    reached = set()
    for _ in range(len(focusable) + 2):
        browser.press("Tab", TAB)
        place = "[...document.querySelectorAll('*')].indexOf(document.activeElement)"
        reached.add(browser.run(place))
    assert len(reached) >= len(focusable)


def _readout(kind):
    return f"document.querySelector('[data-kind={kind}] .readout').textContent"


def test_curves_are_read_and_zoomed_by_keyboard(browser, report):
    browser.open(report.as_uri())
    browser.run("document.querySelector('.panels').focus()")
    browser.press("ArrowRight", RIGHT)
    assert browser.run(_readout("lines")).startswith("training step 10: Held-out log-likelihood")
    browser.press("ArrowRight", RIGHT)
    told = browser.run(_readout("lines"))
    assert "training step 20:" in told and "log Z, nats 0.2;" in told and "global 0.8" in told
    before = browser.run("document.querySelectorAll('.panels .tick')[0].textContent")
    browser.press("+", 187)
    assert browser.run("document.querySelectorAll('.panels .tick')[0].textContent") != before
    browser.press("0")
    assert browser.run("document.querySelectorAll('.panels .tick')[0].textContent") == before


def test_points_are_read_and_the_pair_is_chosen_by_keyboard(browser, report, made_up_fit):
    evil = made_up_fit[0].feature_names_in_[2]
    browser.open(report.as_uri())
    counted = browser.run(_readout("pairs"))
    assert counted.startswith("a across, b up: ")
    browser.run("document.querySelector('.plane').focus()")
    browser.press("ArrowRight", RIGHT)
    told = browser.run(_readout("pairs"))
    assert told.startswith("Row: a −")
    assert browser.run("document.querySelector('.tip').textContent").startswith("Row of the table")
    browser.press("ArrowLeft", LEFT)
    browser.press("Escape", 27)
    browser.press("+", 187)
    within = "document.querySelector('.plane .points.data').getAttribute('d').split('M').length"
    assert browser.run(within) < 150
    browser.press("0")
    assert browser.run(_readout("pairs")) == counted
    browser.run("document.querySelector('select').focus()")
    browser.press("<", 188)  # typing ahead: the column whose name does harm
    assert browser.run("document.querySelector('select').value") == "2"
    assert browser.run(_readout("pairs")).startswith(f"{evil} across, b up")
    assert browser.run("document.querySelectorAll('.plane .contour-line').length") == 2
    # The column of the other axis: the two are exchanged.
    time.sleep(1.2)  # until what is typed starts a new word
    browser.press("b")
    assert browser.run("[...document.querySelectorAll('select')].map((it) => it.value)") == [
        "1",
        "2",
    ]
    assert browser.complaints == []


def test_the_mouse_shows_a_point_and_drags_a_region(browser, report):
    browser.open(report.as_uri())
    browser.run("document.querySelector('.plane').scrollIntoView()")
    rect = browser.run(
        "(({x, y}) => [x, y])(document.querySelector('.plane').getBoundingClientRect())"
    )
    path = browser.run("document.querySelector('.plane .points.data').getAttribute('d')")
    x, y = map(float, path.split("M")[1].removesuffix("h0").split())
    browser.mouse("mouseMoved", rect[0] + x + 1, rect[1] + y + 1)
    assert browser.run("document.querySelector('.tip').hidden") is False
    assert "a: " in browser.run("document.querySelector('.tip').textContent")
    browser.mouse("mousePressed", rect[0] + 200, rect[1] + 100, "left")
    browser.mouse("mouseMoved", rect[0] + 300, rect[1] + 200, "left")
    assert browser.run("document.querySelectorAll('.drag').length") == 1
    browser.mouse("mouseReleased", rect[0] + 300, rect[1] + 200, "left")
    assert browser.run("document.querySelectorAll('.drag').length") == 0
    path = browser.run("document.querySelector('.plane .points.data').getAttribute('d') ?? ''")
    assert path.count("M") < 60
    assert browser.complaints == []


def test_contours_lie_where_the_points_are(browser, report):
    """Of the other order of the columns too: half of the samples are inside of the inner one."""
    inside = """(() => {
      const line = document.querySelector('.contour-line.order-0');
      const points = document.querySelector('.points.model').getAttribute('d').slice(1).split('M');
      const at = (text) => new DOMPoint(...text.replace('h0', '').split(' ').map(Number));
      return points.filter((it) => line.isPointInFill(at(it))).length / points.length;
    })()"""
    browser.open(report.as_uri())
    for pair in ("0,1", "1,0", "0,2", "2,1"):
        across, up = pair.split(",")
        browser.run(
            "[...document.querySelectorAll('select')].forEach((it, i) => {"
            f" it.value = ['{across}', '{up}'][i]; it.dispatchEvent(new Event('change')); }})"
        )
        assert 0.38 < browser.run(inside) < 0.62


def test_the_page_of_a_run_follows_it(browser, made_up_fit, tmp_path):
    evil = "</li><script>alert(1)</script>"
    run = tmp_path / "run"
    with make_server(run, 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            browser.open(f"http://127.0.0.1:{server.server_port}/", "dark")
            status = "document.getElementById('status').textContent"
            browser.wait(f"{status}.startsWith('Waiting: nothing')")
            run.mkdir()
            lines = [json.dumps(each) + "\n" for each in made_up_fit[0].metrics_]
            (run / "metrics.jsonl").write_text("".join(lines[:5]))
            browser.wait(f"{status}.includes('Running: training the energy.')")
            steps = "document.getElementById('steps').textContent"
            assert browser.run(steps) == "Step 50 of 300"
            assert browser.run("document.querySelectorAll('.panels svg').length") == 4
            (run / "metrics.jsonl").write_text("".join(lines))
            browser.wait(f"{steps} === 'Step 300 of 300'")
            verdict = {"status": "doubtful", "reasons": [evil], "figures": {}}
            (run / "config.json").write_text(json.dumps({"verdict": verdict}))
            (run / "report.html").write_text("<title>done</title>")
            later = (run / "metrics.jsonl").stat().st_mtime + 1
            os.utime(run / "report.html", (later, later))
            browser.wait(f"{status}.startsWith('Finished; the verdict is “doubtful”')")
            assert browser.run("document.querySelector('#reasons li').textContent") == evil
            assert browser.run("document.querySelector('#report').hidden") is False
            errors = [each for each in browser.complaints if "favicon" not in json.dumps(each)]
            assert errors == []
        finally:
            server.shutdown()
            thread.join()
    browser.wait(f"{status}.startsWith('No answer')")
