"""The page of a run, written: one file, no network, nothing kept in the browser."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup, escape

from optimize.report import sections
from optimize.report.html import charts, labels, svg
from optimize.report.html.data import embedded
from optimize.report.html.policy import policy
from optimize.report.page import Page, slice_gains
from optimize.report.record import Report
from optimize.report.sections import Section
from optimize.report.sentences import change_sentences, preflight_sentences
from optimize.report.text import headline, met, spent, verdict_line, warnings, why
from optimize.report.untrusted import visible
from optimize.stats.records import percent

SHOWN = 12  # slices
SCRIPTS = ("data.js", "diff.js", "rows.js", "prompts.js")


@dataclass(frozen=True)
class Fact:
    """One of the numbers at the top."""

    name: str
    value: str
    more: str


def html(page: Page) -> str:
    """The whole file. Everything that is not written here is escaped, or JSON that is."""
    data, cut = embedded(page)
    return written(
        "page.html",
        "".join(map(_part, SCRIPTS)),
        page=page,
        report=page.report,
        data=Markup(data),
        cut=cut,
        **_verdict(page),
        **_figures(page),
        **_rest(page),
    )


def written(template: str, script: str = "", **given: Any) -> str:
    """A page of that template, with its style and script in it."""
    style = _part("page.css")
    found: str = (
        _environment()
        .get_template(template)
        .render(policy=policy(style, script), style=Markup(style), script=Markup(script), **given)
    )
    return found


def _part(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8")


def _environment() -> Environment:
    made = Environment(
        loader=FunctionLoader(_part),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # control characters of rows must not reach whoever prints the file in a terminal
        finalize=lambda value: visible(value) if type(value) is str else value,
    )
    made.filters["ticks"] = _ticks
    return made


def _ticks(line: str) -> Markup:
    """A sentence with what stands in backticks as code, which is how terminals are told of it."""
    parts = visible(line).split("`")
    if len(parts) % 2 == 0:  # one that is alone
        return escape(visible(line))
    code = Markup("<code>{}</code>")
    return Markup().join(code.format(p) if n % 2 else escape(p) for n, p in enumerate(parts))


def _verdict(page: Page) -> dict[str, Any]:
    report = page.report
    final = report.final
    facts = [
        Fact(
            "Score on test",
            f"{final.score:.2f}",
            f"[{final.low:.2f}, {final.high:.2f}], {final.n} rows",
        ),
        Fact("Target", f"{report.target:g}", met(report)),
        _chance(report),
        Fact("Spent", *spent(report).split(" (", 1)),
    ]
    facts[-1] = Fact("Spent", facts[-1].value, f"({facts[-1].more}")
    return {
        "headline": headline(report),
        "met": verdict_line(report),
        "facts": facts,
        "warned": warnings(report),
        "why": why(report)[1:],
        "changes": change_sentences(report),
    }


def _chance(report: Report) -> Fact:
    """Of meeting the target; the smaller one where test rows do not bear out what val says."""
    n = report.numbers
    whose = "the best prompt program meets it" if report.decision else "it is met"
    said = {"the judging rows": n.chance, "the test rows": n.on_test}
    if report.verdict == "unconfirmed":
        said = dict(sorted(said.items(), key=lambda one: -1.0 if one[1] is None else one[1]))
    (first, chance), (second, other) = said.items()
    shown = "not known" if chance is None else percent(chance)
    more = "" if other is None else f"; {percent(other)} by {second}"
    return Fact(f"Chance that {whose}", shown, f"by {first}{more}")


def _figures(page: Page) -> dict[str, Any]:
    report, pairs = page.report, labels.pairs(page)
    order = labels.order(pairs)
    known = [found for found in (*charts.climbs(page), charts.costs(page)) if found]
    return {
        "val_bars": charts.val_bars(page),
        "test_bars": charts.test_bars(page),
        "scale": svg.scale(report.target),
        "val_rows": report.rows.get("val", 0),
        "figures": known,
        "heats": [labels.heat(found, order) for found in pairs],
        "label_table": labels.per_label(pairs, order) if pairs else None,
        "sure": charts.sureness(page),
        "slices": _slices(page),
    }


def _slices(page: Page) -> Section:
    title, before, after = "Kind of row by kind of row", *page.compared
    found = slice_gains(page)[:SHOWN]
    if before == after:
        alone = [[s.name, f"{s.before:.2f}", str(s.gain.n)] for s in found]
        return Section(title, (), ("kind of row", before, "n"), alone)
    rows = [
        [s.name, f"{s.before:.2f}", f"{s.after:.2f}", str(s.gain), str(s.gain.n)] for s in found
    ]
    many = "Of many kinds of rows some look bad by chance: the gains' intervals say how bad."
    return Section(title, [many], ("kind of row", before, after, "gain", "n"), rows)


def _rest(page: Page) -> dict[str, Any]:
    report = page.report
    shown = ("Scores on", "The climb")  # as charts
    others = [s for s in sections.sections(report) if not s.title.startswith(shown)]
    skipped = sections.attempts(report.attempts).lines
    return {
        "skipped": skipped,
        "sections": others,
        "card": _card(page),
        "checks": preflight_sentences(report.preflight, report.target),
        "command": page.command,
    }


def _card(page: Page) -> Section:
    report = page.report
    rows = [[side, f"{count:,} rows"] for side, count in report.rows.items()]
    rows += [["content hash", report.data_hash]]
    rows += [["LM", report.lm], ["teacher", report.teacher], ["seed", str(report.seed)]]
    rows += [[f"version of {name}", version] for name, version in page.versions.items()]
    rows += [["run", page.run], ["begun", page.made], ["program", report.program]]
    return Section("Data and versions", (), ("", ""), rows)
