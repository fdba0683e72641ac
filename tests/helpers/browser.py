"""A headless Chromium, driven through pipes by its DevTools protocol, without other packages."""

import base64
import io
import json
import os
import select
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from helpers.waiting import LIMIT, wait_until

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update --remote-debugging-pipe "
    "--allow-pre-commit-input --force-color-profile=srgb --hide-scrollbars"
).split()


def find_chromium() -> str | None:
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """Sends commands to one tab and keeps what its console says.

    Attributes:
        said: messages of the console, and errors that no one caught.
    """

    def __init__(self, process: subprocess.Popen, commands: int, answers: int):
        self.said: list[str] = []
        self._process, self._commands, self._answers = process, commands, answers
        self._number, self._session, self._unread = 0, None, b""
        self._loaded = False
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params) -> dict:
        """The result of a command."""
        self._number += 1
        request = {"id": self._number, "method": method, "params": params}
        if self._session:
            request["sessionId"] = self._session
        os.write(self._commands, json.dumps(request).encode() + b"\0")
        while (message := self._read()).get("id") != self._number:
            self._note(message)
        if "error" in message:
            raise RuntimeError(f"{method}: {message['error']}")
        return message["result"]

    def _read(self) -> dict:
        while b"\0" not in self._unread:
            ready, _, _ = select.select([self._answers], [], [], LIMIT)
            if not ready:
                raise TimeoutError("Chromium does not answer")
            self._unread += os.read(self._answers, 1 << 20)
        message, _, self._unread = self._unread.partition(b"\0")
        return json.loads(message)

    def _note(self, message: dict) -> None:
        params = message.get("params", {})
        if message.get("method") == "Page.loadEventFired":
            self._loaded = True
        elif message.get("method") == "Runtime.consoleAPICalled":
            self.said.append(" ".join(str(arg.get("value")) for arg in params["args"]))
        elif message.get("method") == "Runtime.exceptionThrown":
            self.said.append(json.dumps(params["exceptionDetails"])[:500])
        elif message.get("method") == "Log.entryAdded":
            self.said.append(params["entry"]["text"])

    def size(self, width: int, height: int, dark: bool = False) -> None:
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, path: Path) -> None:
        """Load a file and wait until its pictures that are in view are there."""
        self._loaded = False
        self.send("Page.navigate", url=path.resolve().as_uri())
        while not self._loaded:
            self._note(self._read())

    def run(self, code: str):
        """The value of a JavaScript expression; a promise is waited for."""
        result = self.send(
            "Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in result:
            raise RuntimeError(json.dumps(result["exceptionDetails"])[:800])
        return result["result"].get("value")

    def until(self, condition: str) -> None:
        """Wait until a JavaScript expression is true."""
        wait_until(lambda: self.run(f"Boolean({condition})"), lambda: condition)

    def press(self, key: str) -> None:
        """Press a key by its name in JavaScript."""
        code = {"Enter": 13, "Escape": 27}.get(key, 0)
        text = "\r" if key == "Enter" else key if len(key) == 1 else ""
        named = {"key": key, "windowsVirtualKeyCode": code}
        self.send("Input.dispatchKeyEvent", type="keyDown", text=text, **named)
        self.send("Input.dispatchKeyEvent", type="keyUp", **named)

    def screenshot(self, selector: str) -> np.ndarray:
        """RGB (H, W, 3) uint8 of an element in the window."""
        box = self.run(
            "(({x, y, width, height}) => ({x: x + scrollX, y: y + scrollY, width, height}))"
            f"(document.querySelector({selector!r}).getBoundingClientRect())"
        )
        content = self.send("Page.captureScreenshot", clip=box | {"scale": 1})["data"]
        image = Image.open(io.BytesIO(base64.b64decode(content)))
        return np.asarray(image.convert("RGB"))


@contextmanager
def chromium(program: str) -> Iterator[Browser]:
    """A browser with an empty profile of its own, gone when the with-block ends."""
    read_commands, commands = os.pipe()
    answers, write_answers = os.pipe()

    def as_3_and_4() -> None:  # where --remote-debugging-pipe wants them
        high = os.dup(read_commands), os.dup(write_answers)
        os.dup2(high[0], 3)
        os.dup2(high[1], 4)

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [program, *FLAGS, f"--user-data-dir={profile}"],
            preexec_fn=as_3_and_4, close_fds=False,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for end in (read_commands, write_answers):
            os.close(end)
        try:
            yield Browser(process, commands, answers)
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            for end in (commands, answers):
                os.close(end)
