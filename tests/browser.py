"""A headless Chromium that opens pages from disk, and texts that mean a page no good."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ports import free_ports

# Chromium puts sockets into TMPDIR and its profile, and the path of a socket has 107 bytes at most.
SHORT = "/tmp"

HOSTILE = [
    "</script><script>hacked()</script>",
    "<img src=x onerror=hacked()>",
    "javascript:hacked()",
    "\" onmouseover=hacked() x='",
    "line\u2028paragraph\u2029end \u202e%2F#?&amp; ../../etc",
]


@contextmanager
def chromium() -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver")
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("no chromium and chromedriver here: the page is looked at in no browser")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    profile = tempfile.mkdtemp(prefix="slurm_bench-chromium-", dir=SHORT)
    quiet = ("--no-first-run", "--disable-background-networking", "--disable-gpu")
    bare = ("--no-sandbox", "--disable-dev-shm-usage")  # a container's root, and its small /dev/shm
    for word in ("--headless=new", *quiet, *bare, f"--user-data-dir={profile}", "--window-size=1400,900"):
        options.add_argument(word)
    env = {**os.environ, "TMPDIR": SHORT}
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(driver, port=free_ports(1)[0], env=env)
    browser = webdriver.Chrome(options=options, service=service)
    try:
        browser.set_script_timeout(240)
        yield browser
    finally:
        browser.quit()
        shutil.rmtree(profile, ignore_errors=True)


class Browser:
    """A browser that has opened a page, with the few things that the tests do."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, file: Path, fragment: str = "") -> Browser:
        self.driver.get("about:blank")
        for log in ("browser", "performance"):
            self.driver.get_log(log)
        self.driver.get(file.as_uri() + fragment)
        return self

    def js(self, script: str, *given: Any) -> Any:
        return self.driver.execute_script(script, *given)

    def wait(self, script: str) -> Any:
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.driver, 120, poll_frequency=0.02).until(lambda _: self.js(f"return {script}"))

    def press(self, *keys: str) -> None:
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def ids(self) -> list[str]:
        return self.js("return [...document.querySelectorAll('#gallery .open')].map(e => e.textContent)")

    def set(self, field: str, value: str) -> None:
        script = "const e = document.getElementById('filters').elements[arguments[0]]; e.value = arguments[1];"
        self.js(script + "e.dispatchEvent(new Event('input', {bubbles: true}))", field, value)

    def title(self) -> str:
        return self.js("return document.getElementById('viewer-title').textContent")

    def complaints(self) -> list[str]:
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> set[str]:
        """The schemes of all that was asked for since the page was opened."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        urls = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
        return {url.partition(":")[0] for url in urls}


def axe_finds(browser: Browser, file: Path, sample: str, scheme: str) -> list[Any]:
    """What is serious, or half so, on the page and on the sample that the fragment opens, under its slider."""
    axe = pytest.importorskip("axe_core_python")
    medium = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", medium)
    found = []
    for fragment in ("", sample):
        browser.open(file, fragment)
        browser.js((Path(axe.__file__).parent / "axe.min.js").read_text())
        if fragment:
            browser.press("s")
        told = browser.driver.execute_async_script("const done = arguments[0]; axe.run().then(done)")
        found += [(v["id"], [n["html"] for n in v["nodes"]][:3]) for v in told["violations"] if v["impact"] != "minor"]
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    return found
