"""A headless Chromium, driven over its debugging pipe: no library, no port."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run")
FLAGS += ("--disable-dev-shm-usage",)  # containers have little of it
PATIENCE = 120  # seconds for one answer of the browser


class Page:
    """One page. errors: what its console has told of."""

    def __init__(self, read: int, write: int, width: int, height: int) -> None:
        self._read, self._write, self._number = read, write, 0
        self._heard, self._session = b"", ""
        self.errors: list[str] = []
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        found = self._call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = found["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self._call(f"{domain}.enable")
        self.resize(width, height)

    def resize(self, width: int, height: int = 950) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._call("Emulation.setDeviceMetricsOverride", **size)

    def medium(self, name: str) -> None:
        """`print` shows pages as they are printed, `screen` as they are read."""
        self._call("Emulation.setEmulatedMedia", media=name)

    def before(self, script: str) -> None:
        """Run this before any script of the pages that are opened from now on."""
        self._call("Page.addScriptToEvaluateOnNewDocument", source=script)

    def dark(self, dark: bool) -> None:
        """Whether its user prefers dark pages."""
        wanted = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[wanted])

    def open(self, address: str) -> None:
        self._call("Page.navigate", url="about:blank")  # else only the part behind # would change
        self._call("Page.navigate", url=address)

    def run(self, script: str) -> Any:
        found = self._call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        return found["result"].get("value")

    def until(self, script: str, seconds: float = 60.0) -> Any:
        """The script's value as soon as it is a true one. Raises TimeoutError."""
        end = time.monotonic() + seconds
        while not (found := self.run(script)):
            if time.monotonic() > end:
                text = str(self.run("document.body.innerText"))[:2000]
                raise TimeoutError(f"{script} never came true on this page:\n{text}")
            time.sleep(0.2)
        return found

    def shows(self, *texts: str, seconds: float = 60.0) -> str:
        """The page's text, once it holds all of these."""
        wanted = " && ".join(f"document.body.innerText.includes({json.dumps(t)})" for t in texts)
        self.until(f"!!document.body && {wanted}", seconds)
        return str(self.run("document.body.innerText"))

    def press(self, text: str) -> None:
        """Press the first button, link, box or menu entry that shows just this text."""
        kinds = "button, a, label, [role=menuitem], [role=tab], [role=radio]"
        self.until(
            f"(() => {{ const found = [...document.querySelectorAll('{kinds}')].find(e => "
            f"e.innerText.trim() === {json.dumps(text)}); if (!found) return false; "
            "for (const kind of ['pointerdown', 'mousedown', 'pointerup', 'mouseup']) "
            "found.dispatchEvent(new PointerEvent(kind, {bubbles: true, button: 0})); "
            "found.click(); return true; })()"
        )

    def picture(self) -> bytes:
        """What the page looks like, as PNG."""
        return base64.b64decode(self._call("Page.captureScreenshot", format="png")["data"])

    def _call(self, method: str, **params: Any) -> Any:
        self._number += 1
        asked = {"id": self._number, "method": method, "params": params}
        if self._session:
            asked["sessionId"] = self._session
        os.write(self._write, json.dumps(asked).encode() + b"\0")
        while (told := self._next()).get("id") != self._number:
            self._note(told)
        if "error" in told:
            raise RuntimeError(f"{method}: {told['error']['message']}")
        return told["result"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._heard:
            if not select.select([self._read], [], [], PATIENCE)[0]:
                raise TimeoutError("The browser does not answer.")
            more = os.read(self._read, 1 << 20)
            if not more:
                raise RuntimeError("The browser has ended.")
            self._heard += more
        text, _, rest = self._heard.partition(b"\0")
        self._heard = rest
        found: dict[str, Any] = json.loads(text)
        return found

    def _note(self, told: dict[str, Any]) -> None:
        method, params = told.get("method"), told.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.errors.append(str(params["exceptionDetails"].get("exception", params))[:500])
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")


@contextmanager
def browsing(width: int = 1500, height: int = 950) -> Iterator[Page]:
    """A page of a fresh browser that nobody has touched."""
    assert BROWSER
    reads, tell = os.pipe()
    hear, writes = os.pipe()

    high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 100) for end in (reads, writes)]

    def take_pipes() -> None:  # the browser reads descriptor 3 and writes descriptor 4
        os.dup2(high[0], 3), os.dup2(high[1], 4)

    with tempfile.TemporaryDirectory(prefix="optimize-", ignore_cleanup_errors=True) as home:
        command = [BROWSER, *FLAGS, "--remote-debugging-pipe", f"--user-data-dir={home}"]
        running = subprocess.Popen(
            command, preexec_fn=take_pipes, close_fds=False, stderr=subprocess.DEVNULL
        )
        for end in (reads, writes, *high):
            os.close(end)
        try:
            yield Page(hear, tell, width, height)
        finally:
            os.close(tell), os.close(hear)
            running.terminate()
            running.wait(timeout=30)


def save(page: Page, path: Path, colours: int = 128) -> None:
    """The page as a small PNG."""
    import io

    from PIL import Image

    image = Image.open(io.BytesIO(page.picture())).convert("RGB")
    image.quantize(colours).save(path, optimize=True)
