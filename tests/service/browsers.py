"""A headless Chromium, and what a page must not do while a test looks at it."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from benchmarks.console import BROWSERS


def program() -> str:
    """Path of the browser; without one tests are left out, but not where all must run."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None and os.environ.get("CI"):
        raise AssertionError(f"none of {', '.join(BROWSERS)} is installed")
    return found or pytest.skip(f"none of {', '.join(BROWSERS)} is installed")


@dataclass
class Watch:
    """A page, and what went wrong on it."""

    page: Page
    host: str
    troubles: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)

    def listen(self) -> None:
        self.page.on("pageerror", lambda error: self.troubles.append(str(error)))
        self.page.on("console", lambda line: self.troubles.append(line.text) if line.type == "error" else None)
        self.page.on("request", self._asked)
        self.page.on("response", lambda got: self.refusals.append(got.url) if got.status >= 400 else None)

    def _asked(self, request) -> None:
        place = urlsplit(request.url)
        if place.scheme in ("http", "https", "ws", "wss") and place.netloc != self.host:
            self.strangers.append(request.url)

    def assert_quiet(self, *, refusals: int = 0) -> None:
        """No error, no request to anyone else, and only so many refusals, which the browser logs as errors, too."""
        assert self.strangers == []
        assert len(self.refusals) == refusals, self.refusals
        assert [one for one in self.troubles if "Failed to load resource" not in one] == []


@contextmanager
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program(), args=["--no-sandbox"])
        try:
            yield started
        finally:
            started.close()


def watched(context: BrowserContext, url: str, key: str | None = None) -> Watch:
    """Open the console, and sign in with a `key`."""
    found = Watch(context.new_page(), urlsplit(url).netloc)
    found.listen()
    found.page.goto(url)
    if key is not None:
        found.page.get_by_label("API key").fill(key)
        found.page.get_by_role("button", name="Sign in").click()
        found.page.get_by_role("button", name="Sign out").wait_for()
    return found
