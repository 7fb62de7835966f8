"""The page in Chromium, served as MLflow shows it: in a sandbox that has no storage."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from optimize.report.html.render import html
from tests.browser import Page as Opened
from tests.browser import browsing
from tests.test_page import HARMFUL, page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no Chromium is installed")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr")
KEYS = """
const press = (key) => (document.activeElement || document.body)
  .dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true }));
press('j'); press('j'); press('k');
const moved = document.activeElement === list.querySelector('button');
document.activeElement.click();
const opened = document.querySelectorAll('.open').length;
press('/');
const found = document.activeElement.name;
const began = performance.now();
choose({ q: 'a b' });
const took = performance.now() - began;
document.title = JSON.stringify([moved, opened, found, took < 1000]);
"""


@dataclass
class Site:
    """A server of one page, with what it was asked for."""

    port: int
    asked: list[str] = field(default_factory=list)
    text: str = ""


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Security-Policy", "sandbox allow-scripts")
            self.end_headers()
            self.wfile.write(found.text.encode())

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    found = Site(server.server_port)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield found
    server.shutdown()


def seen(site: Site, folder: Path, text: str, address: str = "") -> str:
    """What the page becomes in a browser; fails where it writes to the console or fetches more."""
    site.text, site.asked[:] = text.replace("PORT", str(site.port)), []
    url = f"http://127.0.0.1:{site.port}/report.html#{address}"
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={folder}", "--dump-dom", url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in done.stderr, done.stderr
    assert site.asked == ["/report.html"]
    return done.stdout


class Counted(HTMLParser):
    """Elements by name and class, and the text of the page's list of rows."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: dict[str, int] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name in (dict(attrs).get("class") or "").split() or [""]:
            self.found[f"{tag}.{name}"] = self.found.get(f"{tag}.{name}", 0) + 1


def test_charts_are_drawn_and_filters_work_in_a_sandbox(site: Site, tmp_path: Path) -> None:
    found = page()
    shown = seen(site, tmp_path, html(found), "side=test&show=broken")
    counted = Counted(shown).found
    assert counted["svg.plot"] == 3 and counted["circle.dot"] == 6 + 4
    before, after = found.sides(found.tables["test"]).values()
    worse = sum(
        b is not None and a is not None and a < b
        for b, a in zip(before.scores, after.scores, strict=True)
    )
    assert counted["li.broken"] == worse > 0 and "li.fixed" not in counted
    assert re.search(rf"Broken <b>{worse}</b>", shown)
    assert "against output_format" in shown and "lines the same" in shown
    assert counted["table.heat"] == 2


def test_a_harmful_row_is_found_and_read_as_text(site: Site, tmp_path: Path) -> None:
    shown = seen(site, tmp_path, html(page()), "side=test&q=alert(1)&row=000000000000")
    assert Counted(shown).found["div.open"] == 1
    assert f"<pre>{HARMFUL[0].replace('<', '&lt;').replace('>', '&gt;')}</pre>" in shown


def test_five_thousand_rows_by_keyboard(site: Site, tmp_path: Path) -> None:
    text = html(page(5000))
    # a script of the test's own is let in; the page allows only its own
    text = re.sub(r"script-src &#39;[^;]*;", "script-src 'unsafe-inline';", text)
    shown = seen(site, tmp_path, text.replace("</body>", f"<script>{KEYS}</script></body>"))
    assert re.search(r"<title>(.*?)</title>", shown, re.S)[1] == '[true,1,"q",true]'  # type: ignore[index]
    assert len(re.findall(r"<li [^>]*data-row", shown)) <= 25


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    """The page of a climb alone that keeps no confidences, opened from its file."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(html(page(1000, with_tuning=False)), encoding="utf-8")
    with browsing() as found:
        found.open(path.as_uri())
        found.until("!!document.querySelector('.list button')")
        yield found


@pytest.mark.parametrize(
    ("width", "medium"), [(740, "screen"), (820, "screen"), (1280, "screen"), (718, "print")]
)
def test_names_in_the_climb_have_room(opened: Opened, width: int, medium: str) -> None:
    opened.resize(width), opened.medium(medium)
    em, least, tallest, whole = opened.run(
        "(() => { const names = [...document.querySelectorAll('.bars th[scope=row]')]; return ["
        "parseFloat(getComputedStyle(names[0]).fontSize), "
        "Math.min(...names.map(e => e.getBoundingClientRect().width)), "
        "Math.max(...names.map(e => e.getBoundingClientRect().height)), "
        "document.documentElement.scrollWidth]; })()"
    )
    assert least >= 8 * em and tallest < 5 * em and whole <= width


def test_an_answer_is_coloured_by_its_score(opened: Opened) -> None:
    opened.resize(1280), opened.medium("screen")
    opened.run("choose({ show: 'broken' }); document.querySelector('.list button').click()")
    style = "(of) => getComputedStyle(document.querySelector(of))"
    good, bad, before, after, *grounds = opened.run(
        f"(() => {{ const style = {style}; return ["
        "style('.moved.fixed h4').color, style('.broken .sign').color, "
        "style('.open .part.good .score').color, style('.open .part.bad .score').color, "
        "style('.open del').backgroundColor, style('.open ins').backgroundColor]; })()"
    )
    assert (before, after) == (good, bad)
    assert set(grounds) == {"rgba(0, 0, 0, 0)"}, "what differs says nothing of what is right"


def test_what_stands_alone_has_the_whole_width(opened: Opened) -> None:
    opened.resize(1280), opened.medium("screen")
    shares = opened.run(
        "[...document.querySelectorAll('.pair > :only-child')].map(e => "
        "e.getBoundingClientRect().width / e.parentElement.getBoundingClientRect().width)"
    )
    assert shares and min(shares) > 0.99
