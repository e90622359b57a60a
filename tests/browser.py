"""A real browser without a screen: what it makes of a page, and what it looks like there."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def chromium() -> str:
    """The browser of this machine; without one the test is skipped, but fails where continuous integration runs."""
    found = next((path for path in map(shutil.which, NAMES) if path), None)
    if found is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("there is no Chromium on the PATH")
    return found


def opened(page: Path, folder: Path, *options: str) -> str:
    """What the browser prints of a page. Every host but this machine's files is out of its reach."""
    command = [
        chromium(),
        "--headless",
        "--no-sandbox",  # as root in a container
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--hide-scrollbars",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        f"--user-data-dir={folder / 'profile'}",
        *options,
        page.as_uri(),
    ]
    made = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert made.returncode == 0, made.stderr
    return made.stdout


def dom(page: Path, folder: Path) -> str:
    """The page as HTML after its scripts have run."""
    return opened(page, folder, "--virtual-time-budget=2000", "--dump-dom")


def screenshot(page: Path, folder: Path, width: int, height: int, *, dark: bool = False) -> Path:
    """A picture of the page's beginning."""
    picture = folder / f"{width}{'-dark' if dark else ''}.png"
    scheme = ["--blink-settings=preferredColorScheme=0"] if dark else []
    opened(page, folder, f"--window-size={width},{height}", f"--screenshot={picture}", *scheme)
    return picture
