"""A visitor at the page, in a real browser, from the upload to the download and the live session.

It needs the extra `web`, Chromium with its driver, and FaceMesh, and takes minutes:

    uv run --extra web pytest -m slow -n0 tests/web/test_browser.py

`TALKJAX_SCREENSHOTS=DIR` keeps pictures of the page there.
"""

import http.client
import json
import os
import shutil
import threading
import time
from pathlib import Path

import cv2
import pytest

from talkjax.media import audio
from talkjax.media.video import VideoReader, probe
from talkjax.sampling import bundled
from talkjax.web.limits import Limits
from talkjax.web.service import Service
from talkjax.web.store import Store
from tests.media_files import make_media, syllables, write_wav
from tests.sampling import fakes

pytestmark = pytest.mark.slow
CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--autoplay-policy=no-user-gesture-required", "--mute-audio", "--window-size=1240,1400",
    "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream",
)  # fmt: skip
PATIENCE = 300
UPLOAD_MB = 20


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """(port, service): the page with the bundled checkpoint."""
    pytest.importorskip("gradio", reason="uv run --extra web pytest ...")
    from talkjax.sampling import Sampler
    from talkjax.web import server

    limits = Limits(upload_mb=UPLOAD_MB, speech_seconds=8.0)
    store = Store(600, str(tmp_path_factory.mktemp("store")))
    service = Service(Sampler.from_pretrained(), limits, store)
    listening = server.listen("127.0.0.1", 0)
    running = server.make_server(service)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    yield listening.getsockname()[1], service
    running.should_exit = True
    thread.join(60)
    store.close()
    assert not store.root.exists()


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Short files: good ones and bad ones."""
    folder = tmp_path_factory.mktemp("inputs")
    write_wav(folder / "speech.wav", syllables(1.0, level=0.1)[None], 16000)
    write_wav(folder / "silence.wav", syllables(1.0, level=0.0)[None], 16000)
    (folder / "notes.mp4").write_text("These are notes, not a video.\n" * 100)
    make_media(folder / "noface.mp4", [fakes.picture(i, 320, 240) for i in range(8)])
    frame = next(iter(VideoReader(bundled.template())))
    (folder / "photo.png").write_bytes(cv2.imencode(".png", frame.rgb[..., ::-1])[1].tobytes())
    with open(folder / "huge.mp4", "wb") as file:
        file.truncate(5 << 30)  # sparse: it takes no room
    return folder


@pytest.fixture
def browser(tmp_path, inputs):
    if not (CHROMIUM.exists() and DRIVER.exists()):
        pytest.skip(f"no {CHROMIUM} or {DRIVER}: apt-get install chromium chromium-driver")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service as Driver

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    microphone = f"--use-file-for-fake-audio-capture={inputs / 'speech.wav'}"
    for option in (*OPTIONS, profile, microphone):
        options.add_argument(option)
    options.add_experimental_option(
        "prefs", {"download.default_directory": str(tmp_path / "downloads")}
    )
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Driver(str(DRIVER)))
    driver.set_page_load_timeout(PATIENCE)
    driver.set_script_timeout(PATIENCE)
    yield driver
    driver.quit()
    shutil.rmtree(tmp_path / "profile", ignore_errors=True)


class Visitor:
    """Hands and eyes."""

    def __init__(self, driver, port):
        self.driver = driver
        driver.get(f"http://127.0.0.1:{port}/")
        self.until(lambda: self.script("return !!document.querySelector('#generate')"), "a page")

    def script(self, code, *values):
        return self.driver.execute_script(code, *values)

    def find(self, selector):
        return self.driver.find_element("css selector", selector)

    def click(self, selector):
        self.until(lambda: self.find(selector).is_enabled(), f"{selector} enabled")
        self.script("arguments[0].scrollIntoView({block: 'center'})", self.find(selector))
        self.find(selector).click()

    def tab(self, name):
        code = "[...document.querySelectorAll('button[role=tab]')]"
        self.script(f"{code}.find((b) => b.innerText === '{name}').click()")

    def text(self, selector):
        code = "const e = document.querySelector(arguments[0]); return e ? e.innerText.trim() : ''"
        return self.script(code, selector)

    def until(self, condition, what):
        deadline = time.monotonic() + PATIENCE
        while not (found := condition()):
            assert time.monotonic() < deadline, f"{what} does not come"
            time.sleep(0.1)
        return found

    def until_text(self, selector, words):
        self.until(lambda: words in self.text(selector), f"{words!r} (but {self.text(selector)!r})")

    def give(self, block, path):
        """Uploads a file into a component, which may hold another one."""
        if not self.script(f"return !!document.querySelector('{block} input[type=file]')"):
            self.script(f"document.querySelector('{block} button[aria-label=Clear]').click()")
            self.until(
                lambda: self.script(f"return !!document.querySelector('{block} input[type=file]')"),
                "a place for a file",
            )
        self.find(f"{block} input[type=file]").send_keys(str(path))

    def picture(self, name):
        folder = os.environ.get("TALKJAX_SCREENSHOTS")
        if folder:
            height = self.script("return document.documentElement.scrollHeight")
            self.driver.set_window_size(1240, min(max(height + 150, 900), 3000))
            time.sleep(1)
            self.driver.save_screenshot(f"{folder}/{name}.png")


def asked(driver):
    """Addresses that the browser asked for."""
    for entry in driver.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            yield message["params"]["request"]["url"]


def stored(service):
    found = [path for path in service.store.root.rglob("*") if path.is_file()]
    return [path.name for path in found if path.name != "lock"]


def test_from_upload_to_download(served, inputs, browser, tmp_path):
    port, service = served
    visitor = Visitor(browser, port)
    visitor.picture("1-empty")

    # What cannot be used is said in one line, and is removed.
    visitor.click("#generate")
    visitor.until_text("#status", "there is no template yet")
    visitor.give("#video", inputs / "notes.mp4")
    visitor.until_text("#template-status", "notes.mp4: is not a readable media file")
    visitor.give("#speech", inputs / "silence.wav")
    visitor.until_text("#speech-status", "silence.wav: is silent")
    assert not stored(service)
    visitor.picture("2-mistakes")
    visitor.give("#video", inputs / "noface.mp4")
    visitor.until_text("#template-status", "noface.mp4: video, 320×240 px")
    visitor.give("#speech", inputs / "speech.wav")
    visitor.until_text("#speech-status", "1.0 s of speech")
    visitor.click("#generate")
    visitor.until_text("#status", "noface.mp4: no face was found")
    assert not visitor.text("#result")

    # A person, chosen by a click on the face.
    visitor.give("#video", bundled.template())
    visitor.until_text("#template-status", "template.mp4: video, 256×256 px")
    visitor.click("#faces button")
    visitor.until(
        lambda: visitor.script("const i = document.querySelector('#frame img');"
                               "return i && i.naturalWidth === 256"), "a frame"
    )  # fmt: skip
    visitor.click("#frame img")
    visitor.until_text("#template-status", "The marked face speaks (0.000s:")
    visitor.picture("3-face")
    visitor.click("#generate")
    visitor.until(lambda: visitor.text("#status progress ~ span"), "progress")
    visitor.until_text("#status", "Done: 25 frames have a new mouth")
    ready = "return [...document.querySelectorAll('.tj-pair video')].map((v) => v.readyState > 1)"
    visitor.until(lambda: visitor.script(ready) == [True, True], "videos that play")
    assert "--face=0.000s:" in visitor.text("#result pre")
    visitor.picture("4-result")
    visitor.click("#tj-both")
    visitor.until(
        lambda: visitor.script("return document.getElementById('tj-video').currentTime > 0.2"),
        "playing",
    )

    for link in browser.find_elements("css selector", "#result a[download]"):
        link.click()
    names = {"talking.mp4", "sheet.png", "settings.json"}
    folder = tmp_path / "downloads"
    visitor.until(lambda: names <= {path.name for path in folder.glob("*")}, "downloads")
    assert probe(folder / "talking.mp4").width == 256
    assert audio.audio_duration(folder / "talking.mp4") == pytest.approx(1.0, abs=0.06)
    settings = json.loads((folder / "settings.json").read_text())
    assert settings["summary"]["frames_generated"] == 25

    # Nothing was asked of another computer, and nothing stays.
    addresses = [url for url in asked(browser) if url.startswith("http")]
    assert addresses and all(f"//127.0.0.1:{port}/" in url for url in addresses), addresses
    browser.get("about:blank")
    visitor.until(lambda: not stored(service), "removal")


def test_five_gigabytes(served, inputs, browser):
    """The page refuses it before it is sent; the server refuses it unread."""
    port, service = served
    visitor = Visitor(browser, port)
    visitor.give("#video", inputs / "huge.mp4")
    visitor.until_text(
        "#tj-refused", "huge.mp4: has 5369 MB, and this page takes files of up to 20"
    )
    visitor.picture("5-huge")
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.putrequest("POST", "/gradio_api/upload")
    connection.putheader("Content-Type", "multipart/form-data; boundary=x")
    connection.putheader("Content-Length", str(5 << 30))
    connection.endheaders(b"--x\r\n")
    answer = connection.getresponse()
    assert answer.status == 413 and b"larger than 20 MB" in answer.read()
    assert not stored(service)


def test_a_photograph_and_a_text(served, inputs, browser):
    port, service = served
    visitor = Visitor(browser, port)
    visitor.tab("Photograph")
    visitor.give("#photo", inputs / "photo.png")
    visitor.until_text("#template-status", "photo.png: photograph, 256×256 px")
    visitor.click("#type button")
    visitor.until(lambda: visitor.find("#text textarea").is_displayed(), "a place for text")
    visitor.find("#text textarea").send_keys("Hello, this is typed.")
    visitor.click("#speak")
    visitor.until_text("#speech-status", "s of speech")
    visitor.click("#generate")
    visitor.until(lambda: visitor.text("#status progress ~ span"), "progress")
    visitor.picture("7-progress")
    visitor.click("#stop")
    visitor.until_text("#status", "Stopped.")
    assert not visitor.text("#result") and not len(service.turns)


def test_a_live_session(served, browser):
    port, service = served
    visitor = Visitor(browser, port)
    visitor.click("#example")
    visitor.until_text("#template-status", "template.mp4: video")
    visitor.tab("Live")
    visitor.until(lambda: visitor.find("#prepare").is_displayed(), "the tab")
    visitor.click("#tj-start")
    visitor.until_text("#tj-live-status", "Nobody is prepared yet")
    visitor.click("#prepare")
    visitor.until_text("#prepare-status", "The person is ready")
    visitor.click("#tj-start")
    visitor.until(
        lambda: visitor.script("return live && live.shown > 30"),
        f"a frame ({visitor.text('#tj-live-status')})",
    )
    visitor.until(lambda: visitor.script("return live && live.speaking > 10"), "sound")
    assert visitor.script("return live.context.state") == "running"
    visitor.picture("6-live")
    assert len(service.turns) == 1
    browser.get("about:blank")  # the page is closed in the middle
    visitor.until(lambda: not len(service.turns), "the end of the session")
    visitor.until(lambda: not stored(service), "removal")
    assert not service.sampler.open_sessions
