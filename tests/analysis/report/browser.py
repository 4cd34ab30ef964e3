"""A headless Chromium for tests, and what it asked for and complained about while it had the page open."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from selenium.webdriver import Chrome, ChromeOptions, ChromeService

MISSING = "needs chromium and chromedriver (Debian: apt-get install chromium chromium-driver)"


def installed() -> bool:
    """Whether both are on the path."""
    return all(map(shutil.which, ("chromium", "chromedriver")))


def start() -> Chrome:
    """A browser that keeps its console and its requests. Selenium itself must fetch nothing."""
    options = ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for argument in ("--headless=new", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return Chrome(options=options, service=ChromeService(shutil.which("chromedriver")))


def opened(browser: Chrome, page: Path, width: int = 1200, dark: bool = False) -> None:
    """Open a file in a window of this width, as on a phone where it is narrow."""
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    browser.get(page.resolve().as_uri())


def requests(browser: Chrome) -> list[str]:
    """Every address asked for since the last call."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [event["params"]["request"] for event in events if event["method"] == "Network.requestWillBeSent"]
    return [request["url"] for request in sent]


def complaints(browser: Chrome) -> list[str]:
    """What the console said since the last call: errors, refused requests, warnings."""
    return [entry["message"] for entry in browser.get_log("browser")]
