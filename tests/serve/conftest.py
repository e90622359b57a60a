"""The browser that tests of a file share."""

from collections.abc import Iterator

import pytest
from browser_session import BrowserSession


@pytest.fixture(scope="module")
def chromium(tmp_path_factory) -> Iterator[BrowserSession]:
    session = BrowserSession(tmp_path_factory.mktemp("browser"))
    try:
        yield session
    finally:
        session.close()
