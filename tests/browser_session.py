"""A page in a real browser that a test types into, clicks on and asks: DevTools' protocol over a pipe."""

import base64
import json
import os
import queue
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import browser

LAUNCHER = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(end), fcntl.F_DUPFD, 10) for end in sys.argv[1:3]]
for end, place in zip(ends, (3, 4)):
    os.dup2(end, place)
os.execvp(sys.argv[3], sys.argv[3:])
"""
"""Chromium reads commands from file descriptor 3 and answers on 4."""
KEYS = {
    "Enter": (13, "\r"),
    "Escape": (27, ""),
    "Tab": (9, ""),
    "Home": (36, ""),
    "End": (35, ""),
    "ArrowLeft": (37, ""),
    "ArrowRight": (39, ""),
    " ": (32, " "),
}
MODIFIERS = {"Alt": 1, "Control": 2, "Meta": 4, "Shift": 8}
PATIENCE = 60.0
"""Seconds that anything may take on a machine that others use as well."""


class BrowserSession:
    """One tab. Nothing but this machine's own servers is in its reach."""

    def __init__(self, folder: Path, width: int = 1100, height: int = 800):
        commands, self._out = os.pipe()
        self._in, answers = os.pipe()
        chromium = [
            browser.chromium(),
            "--headless",
            "--no-sandbox",  # as root in a container
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            "--remote-debugging-pipe",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            f"--user-data-dir={folder / 'profile'}",
            "about:blank",
        ]
        self._process = subprocess.Popen(
            [sys.executable, "-c", LAUNCHER, str(commands), str(answers), *chromium],
            pass_fds=(commands, answers),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(commands)
        os.close(answers)
        self._messages: queue.Queue[dict[str, Any] | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self._number = 0
        self._session: str | None = None
        self.complaints: list[str] = []
        """Errors in the console, exceptions and dialogs since the page was opened."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        self.resize(width, height)

    def close(self) -> None:
        """End the browser."""
        self._process.terminate()
        self._process.wait(PATIENCE)
        os.close(self._out)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol; its result."""
        self._number += 1
        command = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            command["sessionId"] = self._session
        os.write(self._out, json.dumps(command).encode() + b"\0")
        while True:
            message = self._messages.get(timeout=PATIENCE)
            assert message is not None, "the browser ended"
            if message.get("id") == self._number:
                assert "error" not in message, message
                return message["result"]
            self._notice(message)

    def open(self, url: str) -> None:
        """Load a page and wait until its scripts have run."""
        self.complaints.clear()
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def run(self, script: str) -> Any:
        """The value of an expression on the page; of its promise, if it is one."""
        how = {"returnByValue": True, "awaitPromise": True, "userGesture": True, "allowUnsafeEvalBlockedByCSP": False}
        made = self.call("Runtime.evaluate", expression=script, **how)
        assert "exceptionDetails" not in made, (script, made["exceptionDetails"])
        return made["result"].get("value")

    def wait(self, condition: str) -> None:
        """Wait until an expression is true."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            if self.run(f"Boolean({condition})"):
                return
            time.sleep(0.02)
        raise AssertionError(f"never true: {condition}; the page says {self.text('body')!r}; {self.complaints}")

    def text(self, selector: str) -> str:
        """The text of the first element, as a reader sees it."""
        return self.run(f"document.querySelector({json.dumps(selector)})?.innerText")

    def texts(self, selector: str) -> list[str]:
        """The texts of all elements."""
        return self.run(f"[...document.querySelectorAll({json.dumps(selector)})].map(each => each.innerText)")

    def click(self, selector: str) -> None:
        """Press the pointer on the middle of an element."""
        point = self._middle(selector)
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **point)

    def hover(self, selector: str) -> None:
        """Move the pointer over an element."""
        self.call("Input.dispatchMouseEvent", type="mouseMoved", **self._middle(selector))

    def write(self, text: str) -> None:
        """Put a text where the focus is, as a keyboard or a paste does."""
        self.call("Input.insertText", text=text)

    def press(self, key: str) -> None:
        """Press a key, such as `Enter` or `Shift+Tab`."""
        *held, name = key.split("+")
        code, text = KEYS[name]
        modifiers = sum(MODIFIERS[each] for each in held)
        event = {"key": name, "code": name, "windowsVirtualKeyCode": code, "modifiers": modifiers}
        self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **event)
        self.call("Input.dispatchKeyEvent", type="keyUp", **event)

    def resize(self, width: int, height: int) -> None:
        """Give the page another size."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def prefer(self, **features: str) -> None:
        """Set what the system prefers, such as `color_scheme="dark"`."""
        named = [{"name": "prefers-" + name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.call("Emulation.setEmulatedMedia", features=named)

    def connect(self, is_online: bool) -> None:
        """Take the network away, or give it back."""
        self.call("Network.enable")
        speed = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        self.call("Network.emulateNetworkConditions", offline=not is_online, **speed)

    def screenshot(self, path: Path) -> None:
        """Write a picture of what is in view."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def _middle(self, selector: str) -> dict[str, float]:
        script = f"""(() => {{
            const found = document.querySelector({json.dumps(selector)});
            found.scrollIntoView({{block: "nearest"}});
            const box = found.getClientRects()[0];
            return {{x: box.left + box.width / 2, y: box.top + box.height / 2}};
        }})()"""
        return self.run(script)

    def _read(self) -> None:
        rest = b""
        while chunk := os.read(self._in, 1 << 16):
            *whole, rest = (rest + chunk).split(b"\0")
            for message in whole:
                self._messages.put(json.loads(message))
        self._messages.put(None)
        os.close(self._in)

    def _notice(self, message: dict[str, Any]) -> None:
        match message:
            case {"method": "Log.entryAdded", "params": {"entry": {"level": "error", "text": text}}}:
                self.complaints.append(text)
            case {"method": "Runtime.exceptionThrown", "params": {"exceptionDetails": details}}:
                self.complaints.append(details.get("exception", {}).get("description", details["text"]))
            case {"method": "Page.javascriptDialogOpening", "params": {"message": text}}:
                self.complaints.append(f"dialog: {text}")
                self._number += 1
                answer = {"id": self._number, "method": "Page.handleJavaScriptDialog", "params": {"accept": True}}
                os.write(self._out, json.dumps(answer | {"sessionId": self._session}).encode() + b"\0")
