"""A rater at the page, in a real browser: from a web server and from disk."""

import functools
import http.server
import json
import shutil
import threading
import time
from pathlib import Path

import pytest

from talkjax.user_study import answers, rates, study
from tests.user_study import clips

CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--autoplay-policy=no-user-gesture-required", "--mute-audio",
)  # fmt: skip
CLIPS = ("anna", "ben")
PREFERRED = {"sync": "a", "identity": "b"}
PATIENCE = 60


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(folder, key) of a study: two questions about two clips, and a check for each."""
    root = tmp_path_factory.mktemp("study")
    a, b = clips.make_systems(root, CLIPS, seconds=1.2)
    persons = clips.make_truth(root / "persons", CLIPS)
    pairs, _ = study.find_pairs(str(a), str(b), str(persons), None)
    key = study.write_study(pairs, root / "out", clips.SYSTEMS, list(PREFERRED), 2, 0, "A study")
    return root / "out" / "study", key


@pytest.fixture
def browser(tmp_path):
    if not (CHROMIUM.exists() and DRIVER.exists()):
        pytest.skip(f"no {CHROMIUM} or {DRIVER}: apt-get install chromium chromium-driver")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for option in (*OPTIONS, f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1200,900"):
        options.add_argument(option)
    options.add_experimental_option(
        "prefs", {"download.default_directory": str(tmp_path / "downloads")}
    )
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    driver.set_page_load_timeout(PATIENCE)
    yield driver
    driver.quit()
    shutil.rmtree(tmp_path / "profile", ignore_errors=True)


@pytest.fixture
def server(made):
    """(address, paths that were asked for): the plainest static server, which knows no ranges."""
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_request(self, code="-", size="-"):
            asked.append((self.path, int(code)))

        def log_error(self, *unused):
            pass

    handler = functools.partial(Handler, directory=str(made[0]))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{served.server_port}", asked
        served.shutdown()


class Rater:
    """Hands and eyes."""

    def __init__(self, driver, key):
        self.driver, self.key = driver, key

    def find(self, name):
        return self.driver.find_element("id", name)

    def click(self, name):
        self.find(name).click()

    def press(self, keys):
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).send_keys(keys).perform()

    def script(self, code):
        return self.driver.execute_script(code)

    def until(self, condition):
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, self.driver.get_log("browser")
            time.sleep(0.05)

    def can_answer(self):
        return not self.script("return $('answer').disabled")

    def go_on(self):
        """Past the page that announces a part, if it shows."""
        if self.find("interlude").is_displayed():
            self.click("go")

    def wanted(self):
        """What this rater chooses in the trial that shows: the planted preference."""
        trial = self.key["trials"][self.script("return current")]
        if trial["check"]:
            return "none"
        return next(s for s in ("left", "right") if trial[s] == PREFERRED[trial["question"]])

    def answer_with_keys(self):
        self.go_on()
        self.press(" ")
        self.until(self.can_answer)
        self.press({"left": "1", "none": "2", "right": "3"}[self.wanted()])
        self.press("\ue007")  # Enter

    def answer_with_the_mouse(self):
        self.go_on()
        self.click("play")
        self.until(self.can_answer)
        self.driver.find_element("css selector", f"input[value={self.wanted()}]").click()
        self.click("next")


def download(rater, folder, button):
    shutil.rmtree(folder, ignore_errors=True)
    rater.click(button)
    rater.until(lambda: list(folder.glob("*.csv")))
    (path,) = folder.glob("*.csv")
    return path


@pytest.mark.parametrize("where", ["server", "disk"])
def test_a_rater_at_work(made, browser, server, tmp_path, where):
    folder, key = made
    address, asked = server
    url = f"{address}/index.html" if where == "server" else (folder / "index.html").as_uri()
    rater = Rater(browser, key)
    browser.get(url)
    assert "voluntary" in rater.find("welcome").text
    rater.find("rater").send_keys(' Zoë, "the" <1>')
    rater.click("begin")

    # The first trial, in every way at once. Nothing can be answered before both were seen.
    rater.go_on()
    assert not rater.can_answer() and not rater.find("next").is_enabled()
    rater.click("only-left")
    rater.until(lambda: rater.script("return seen[0] && !playing"))
    assert not rater.can_answer()
    assert rater.script("return videos.map((video) => video.muted)") == [False, True]
    rater.press("1")
    rater.script("answer()")
    assert rater.script("return choice()") is None
    assert rater.script("return Object.keys(state.answers).length") == 0
    rater.press("r")  # the left one again
    rater.until(lambda: rater.script("return playing && videos[0].currentTime > 0.2"))
    rater.press(" ")
    assert not rater.script("return playing") and rater.script("return videos[0].paused")
    rater.answer_with_the_mouse()  # both: begun for the third time
    rater.answer_with_keys()
    first = rater.script("return state.order")
    part = answers.read_answers([download(rater, tmp_path / "downloads", "save")], key)
    assert [vote.replays for vote in part] == [2, 0] and part[0].seconds > 3

    # A page that is loaded again goes on where it was. Whether another tab does, too, is up to the
    # browser, which writes what it stores when it likes.
    browser.refresh()
    stored = rater.script("return Object.keys(localStorage)")
    if where == "disk" and not stored:
        pytest.skip("this browser kept nothing of a page from disk, as it may")
    assert rater.script("return state !== null"), stored
    assert rater.script("return state.order") == first
    assert rater.find("count").text == "Pair 3 of 6"
    while not rater.find("end").is_displayed():
        rater.answer_with_keys()
    path = download(rater, tmp_path / "downloads", "save-end")
    votes = answers.read_answers([path], key)
    assert [vote.rater for vote in votes] == ["Zoë_the_1_"] * 6
    assert votes[:2] == part
    assert [vote.question for vote in votes] == ["sync"] * 3 + ["identity"] * 3
    report = json.loads(json.dumps(rates.compute_rates(votes, key)))
    assert {q: r["share"]["value"] for q, r in report["questions"].items()} == {
        "sync": 1.0, "identity": 0.0,
    }  # fmt: skip
    assert report["checks"]["failures"] == 0 and report["checks"]["votes"] == 2
    assert report["raters"][0]["answered"] == report["raters"][0]["of"] == 6

    rater.click("erase")
    browser.switch_to.alert.accept()
    assert rater.find("welcome").is_displayed()
    assert rater.script("return localStorage.length") == 0
    assert not browser.get_log("browser")  # neither errors nor blocked addresses
    if where == "server":
        names = {f"/{path.name}" for path in folder.iterdir()}
        assert {path for path, _ in asked} == names
        assert {code for _, code in asked} <= {200, 304}
    else:
        assert not asked


def test_both_play_in_step(made, browser):
    """A video that plays too slowly is waited for, and the answer still comes."""
    rater = Rater(browser, made[1])
    browser.get((made[0] / "index.html").as_uri())
    rater.click("begin")
    rater.go_on()
    rater.script(
        "videos[0].playbackRate = 0.5; window.apart = [];"
        "setInterval(() => { if (playing && !videos.some((video) => video.ended))"
        "  apart.push(Math.abs(videos[0].currentTime - videos[1].currentTime)); }, 20)"
    )
    rater.click("play")
    rater.until(rater.can_answer)
    apart = rater.script("return apart")
    assert len(apart) > 20 and max(apart) < 0.3  # 0.6 without


def test_it_fits_a_phone(made, browser):
    rater = Rater(browser, made[1])
    size = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get((made[0] / "index.html").as_uri())
    assert rater.script("return document.documentElement.scrollWidth") <= 360
    rater.click("begin")
    rater.go_on()
    rater.until(lambda: rater.script("return videos.every((video) => video.readyState > 1)"))
    assert rater.script("return document.documentElement.scrollWidth") <= 360
    boxes = rater.script(
        "return videos.map((v) => v.getBoundingClientRect()).map((b) => [b.x, b.y, b.width])"
    )
    assert boxes[0][0] < boxes[1][0] and boxes[0][1] == boxes[1][1]  # left is left
    assert min(box[2] for box in boxes) > 140
