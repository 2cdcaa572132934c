"""Names from files, labels and logs are data: no such name adds an element, an attribute or a request to a report."""

from __future__ import annotations

import base64
import hashlib
import html
import importlib.util
import itertools
import json
import re
import sys
import unicodedata
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import html5lib
import pytest

from accord.report.charts import visible
from accord.report.page import write_report

HOSTILE = [
    "</script><script>alert(1)</script>",
    "</SCRIPT ><svg onload=alert(1)>",
    "<!--<script>",
    "--><script>alert(1)</script>",
    "<![CDATA[",
    "]]><script>alert(1)</script>",
    '" onmouseover="alert(1)',
    "' onmouseover='alert(1)",
    "` onmouseover=alert(1) `",
    '"><img src=x onerror=alert(1)>',
    "<img src=x onerror=alert(1)>",
    "<svg/onload=alert(1)>",
    "<iframe srcdoc='<script>alert(1)</script>'>",
    "<style>*{background:red}</style>",
    "</style><script>alert(1)</script>",
    "</title><script>alert(1)</script>",
    "</textarea><script>alert(1)</script>",
    "</svg><script>alert(1)</script>",
    "</desc></svg><img src=x onerror=alert(1)>",
    "<foreignObject><body onload=alert(1)>",
    "<base href=https://example.org/>",
    "<link rel=stylesheet href=https://example.org/x.css>",
    '<meta http-equiv="refresh" content="0;url=https://example.org">',
    "<a href=javascript:alert(1)>x</a>",
    "javascript:alert(1)",
    "data:text/html,<script>alert(1)</script>",
    "https://example.org/x.png",
    "url(https://example.org/x.png)",
    "{{7*7}}",
    "{0.__class__}",
    "${alert(1)}",
    "%(name)s %s %n",
    "\u202egnp.exe",
    "\u2066abc\u2069\u200f",
    "a\u2028alert(1)\u2029b",
    "\x1b[31mred\x1b]0;title\x07",
    "nul\x00 bell\x07 del\x7f",
    "line\nbreak\ttab\r\n",
    "\ud800 lone surrogate \udcff",
    "&lt;b&gt;&#60;script&#62;&amp;",
    "\ufeff\u200b\u00ad zero width",
    "\U000e0041\U000e0042 tag characters",
    "../../../../etc/passwd",
    "$(touch x); `id`",
]


def load(name: str) -> ModuleType:
    """A helper module from the folder of the tests, which is no package."""
    path = Path(__file__).parents[1] / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"accord_tests_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


fake_run, browser = load("fake_run"), load("browser")


def page_of(folder: Path, prefix: str, **options: Any) -> str:
    fake_run.write_run(folder, name=lambda text: prefix + text, samples=24, lines=8, **options)
    return write_report(folder).read_bytes().decode("utf-8")


def parsed(page: str) -> Any:
    """The document; the parser is strict, so anything that is not valid HTML fails here."""
    return html5lib.HTMLParser(strict=True).parse(page)


def shape(document: Any) -> Counter[tuple[str, tuple[str, ...]]]:
    """Each element with the names of its attributes, counted."""
    return Counter((str(node.tag), tuple(sorted(node.attrib))) for node in document.iter())


@pytest.fixture(scope="module")
def harmless(tmp_path_factory: pytest.TempPathFactory) -> Counter[tuple[str, tuple[str, ...]]]:
    return shape(parsed(page_of(tmp_path_factory.mktemp("harmless") / "run", "plain ")))


@pytest.mark.parametrize("hostile", HOSTILE, ids=[f"{i:02d}" for i in range(len(HOSTILE))])
def test_a_hostile_name_changes_nothing_but_text(hostile: str, harmless: Counter[Any], tmp_path: Path) -> None:
    page = page_of(tmp_path / "run", hostile)
    document = parsed(page)
    assert shape(document) == harmless

    shown = visible(hostile).strip()
    words = " ".join(document.itertext())
    assert shown in words, "the name must be shown, not dropped"
    assert [c for c in page if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") and c != "\n"] == []

    for node in document.iter():
        for attribute, value in node.attrib.items():
            assert not attribute.lower().startswith("on")
            assert attribute not in ("style", "src", "action", "srcdoc", "formaction")
            if attribute.endswith("href"):
                assert value.startswith(("#", "data:image/png;base64,"))

    scripts = [node for node in document.iter() if str(node.tag).endswith("script")]
    assert [script.get("type") for script in scripts] == ["application/json", None]
    data = json.loads(scripts[0].text, parse_constant=pytest.fail)
    assert data["classes"][3] == visible(hostile + "3")
    assert data["map"]["key"][5] == visible(hostile + "row 5")


def test_the_check_notices_an_element_that_gets_through(harmless: Counter[Any], tmp_path: Path) -> None:
    page = page_of(tmp_path / "run", "<b>x</b>")
    escaped = html.escape("<b>x</b>")
    assert page.count(escaped) > 10
    assert shape(html5lib.parse(page.replace(escaped, "<b>x</b>", 1))) != harmless


def test_the_name_of_the_run_itself_is_inert(tmp_path: Path) -> None:
    folder = tmp_path / "<img src=x onerror=alert(1)>"
    document = parsed(page_of(folder, ""))
    assert not [node for node in document.iter() if str(node.tag).endswith("}img")]
    assert folder.name in " ".join(document.itertext())


@pytest.mark.parametrize(
    "options",
    [{"labels": False}, {"evaluated": False}, {"kind": "vector"}],
    ids=["no labels", "no evaluation", "vectors"],
)
def test_other_kinds_of_runs_are_inert_too(options: dict[str, Any], tmp_path: Path) -> None:
    plain = shape(parsed(page_of(tmp_path / "plain" / "run", "plain ", **options)))
    for i, hostile in enumerate(HOSTILE[::12]):
        assert shape(parsed(page_of(tmp_path / str(i) / "run", hostile, **options))) == plain


def test_a_hostile_event_at_the_end_of_a_run_that_was_not_evaluated(tmp_path: Path) -> None:
    def ending(folder: Path, text: str) -> Counter[Any]:
        fake_run.write_run(folder, samples=24, lines=8, evaluated=False)
        with (folder / "metrics.jsonl").open("a") as log:
            log.write(json.dumps({"step": 90, "event": text}) + "\n")
        document = parsed(write_report(folder).read_text("utf-8"))
        assert visible(text).strip() in " ".join(document.itertext())
        return shape(document)

    plain = ending(tmp_path / "plain" / "run", "stopped")
    for i, hostile in enumerate(["`a` and ``b``", *HOSTILE[::5]]):
        assert ending(tmp_path / str(i) / "run", hostile) == plain


def test_policy_allows_exactly_the_style_and_the_script_of_the_page(tmp_path: Path) -> None:
    document = parsed(page_of(tmp_path / "run", "x"))
    head = next(node for node in document if str(node.tag).endswith("head"))
    (policy,) = [node.get("content") for node in head if node.get("http-equiv") == "Content-Security-Policy"]
    place = [node.get("http-equiv") for node in head].index("Content-Security-Policy")
    assert place < [str(node.tag).rpartition("}")[2] for node in head].index("style"), (
        "a policy binds only what follows it"
    )
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    style = next(node.text for node in document.iter() if str(node.tag).endswith("style"))
    script = next(node.text for node in document.iter() if str(node.tag).endswith("script") and not node.get("type"))
    assert rules == {
        "default-src": "'none'",
        "img-src": "data:",
        "style-src": f"'{sha256(style)}'",
        "script-src": f"'{sha256(script)}'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }


def sha256(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def test_nothing_in_the_page_points_outside(tmp_path: Path) -> None:
    fake_run.write_run(tmp_path / "run")
    page = write_report(tmp_path / "run").read_text("utf-8")
    allowed = "http://www.w3.org/2000/svg"  # the name of SVG's elements in the script; nothing is loaded from there
    assert re.findall(r"(?i)https?://|//[a-z0-9-]+\.[a-z]", page.replace(allowed, "")) == []
    for word in ("url(", "@import", "@font-face", "fetch(", "XMLHttpRequest", "innerHTML", "eval(", "document.write"):
        assert word.lower() not in page.lower()


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Any:
    program = browser.find()
    if program is None:
        pytest.skip("Chromium is not installed (apt-get install chromium)")
    with browser.Browser(program, tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def test_in_chromium_nothing_runs_and_nothing_is_requested(chromium: Any, tmp_path: Path) -> None:
    names = itertools.cycle(HOSTILE)
    fake_run.write_run(tmp_path / "run", name=lambda text: next(names) + text)
    path = write_report(tmp_path / "run")
    chromium.open(path)
    for group in ("#map", "#chart0", ".row figure"):
        chromium.point_at(f"document.querySelector({group!r})")
    assert chromium.dialogs == []
    assert chromium.complaints == []
    assert {url.split(":")[0] for url in chromium.requests} <= {"file", "data"}
    assert [url for url in chromium.requests if url.startswith("file")] == [path.resolve().as_uri()]
    assert chromium.ask("document.querySelectorAll('b, i, em').length") > 10


def test_in_chromium_the_observer_sees_dialogs_and_requests(chromium: Any, tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    page.write_text("<!DOCTYPE html><script>alert('seen')</script><img src='file:///nowhere.png' onerror='alert(2)'>")
    chromium.open(page)
    assert "seen" in chromium.dialogs
    assert "file:///nowhere.png" in chromium.requests


@pytest.mark.parametrize(("width", "mobile"), [(320, True), (390, True), (768, True), (1366, False)])
def test_in_chromium_no_sideways_scroll(chromium: Any, width: int, mobile: bool, tmp_path: Path) -> None:
    fake_run.write_run(
        tmp_path / "run", name=lambda text: "a_very_long_name_without_any_space/" * 6 + text, samples=24, lines=8
    )
    chromium.open(write_report(tmp_path / "run"), width=width, mobile=mobile)
    assert chromium.ask("document.documentElement.scrollWidth") <= width


def test_in_chromium_the_map_answers_the_pointer(chromium: Any, tmp_path: Path) -> None:
    fake_run.write_run(tmp_path / "run", samples=24)
    chromium.open(write_report(tmp_path / "run"))
    chromium.point_at("document.querySelector('#map .dots').children[7]")
    assert chromium.ask("document.getElementById('tip').hidden") is False
    assert chromium.ask("document.getElementById('tip').innerText").split("\n")[-1].startswith("row ")
    assert chromium.ask("document.querySelectorAll('#tip use').length") == 1


def test_in_chromium_a_class_is_brought_out_and_pictures_shown_without_a_script(chromium: Any, tmp_path: Path) -> None:
    fake_run.write_run(tmp_path / "run", samples=24)
    chromium.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        chromium.open(write_report(tmp_path / "run"))
        faded = (
            "[...document.querySelectorAll('#map .dots > *')].filter((e) => getComputedStyle(e).opacity < 0.1).length"
        )
        shown = "getComputedStyle(document.querySelector('#map .tiles')).display"
        assert (chromium.ask(faded), chromium.ask(shown)) == (0, "none")
        chromium.ask(
            "document.getElementById('class-3').checked = true; document.getElementById('layer-tiles').checked = true"
        )
        chromium.ask("document.getAnimations().forEach((a) => a.finish())")
        threes = sum(int(label) == 3 for label in fake_run.embeddings(24)[1])
        assert (chromium.ask(faded), chromium.ask(shown)) == (24 - threes, "inline")
    finally:
        chromium.call("Emulation.setScriptExecutionDisabled", value=False)
