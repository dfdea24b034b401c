"""
The frame of every page: one file, no script, no request to elsewhere.

Light and dark follow the reader's setting, widths from 320 px up have no scrolling across, and
a print has no navigation. The policy in the head lets a browser run or load nothing, whatever
a name or a value holds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from clewline.html.charts import Chart, Tone, write
from clewline.html.markup import Content, Markup, element, isolated, join

LISTED_ROWS = 400
"""Rows of a table that a page shows; it says how many there are."""

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"

LIGHT = {
    "ground": "#ffffff",
    "raised": "#f5f7f9",
    "line": "#dde2e8",
    "text": "#1a2330",
    "muted": "#566270",
    "model": "#1d5dbd",
    "other": "#a8500a",
    "plain": "#66717e",
    "good": "#15714a",
    "bad": "#b0261f",
    "third": "#6a4cb8",
    "fourth": "#0d747c",
}
DARK = {
    "ground": "#10151b",
    "raised": "#1a212a",
    "line": "#323d49",
    "text": "#e7ebf0",
    "muted": "#a5b0bd",
    "model": "#80b1ff",
    "other": "#f0a75e",
    "plain": "#98a4b2",
    "good": "#66d2a1",
    "bad": "#ff948b",
    "third": "#bca7ff",
    "fourth": "#62d0d8",
}
SHADES = 20
"""Steps in which the cells of a table are shaded, each a class."""
TONES: tuple[Tone, ...] = ("model", "other", "plain", "good", "bad", "third", "fourth")


def _variables(colours: dict[str, str]) -> str:
    return "".join(f"--{name}:{value};" for name, value in colours.items())


STYLE = (
    f":root{{color-scheme:light dark;{_variables(LIGHT)}}}"
    f"@media (prefers-color-scheme:dark){{:root{{{_variables(DARK)}}}}}"
    + "".join(f".tone-{tone}{{--tone:var(--{tone})}}" for tone in TONES)
    + "".join(f".shade-{step}{{--share:{step / SHADES:g}}}" for step in range(SHADES + 1))
    + """
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;scroll-behavior:smooth}
body{margin:0;background:var(--ground);color:var(--text);
 font:1rem/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif}
.frame{max-width:76rem;margin:0 auto;padding:1.5rem clamp(1rem,4vw,2.5rem) 4rem}
h1,h2,h3{line-height:1.2;margin:0;text-wrap:balance;overflow-wrap:anywhere}
h1{font-size:clamp(1.6rem,1.2rem + 1.6vw,2.25rem);letter-spacing:-.015em}
h2{font-size:1.375rem;letter-spacing:-.01em}
h3{font-size:1rem}
p{margin:0;max-width:68ch;overflow-wrap:anywhere}
a{color:var(--model)}
a:focus-visible,summary:focus-visible,.scroll:focus-visible{outline:2px solid var(--model);
 outline-offset:2px;border-radius:2px}
code{font:.9em ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;
 background:var(--raised);padding:.1em .35em;border-radius:4px;overflow-wrap:anywhere}
.kicker{color:var(--muted);font-size:.875rem;margin-bottom:.35rem}
.muted{color:var(--muted)}
header{display:grid;gap:.5rem;padding-bottom:1.5rem}
.skip{position:absolute;left:-99rem}
.skip:focus{left:1rem;top:.5rem;background:var(--ground);padding:.5rem 1rem}
nav ol{list-style:none;margin:0;padding:0;display:flex;flex-wrap:wrap;gap:.25rem 1rem;
 font-size:.875rem}
nav a{color:var(--muted);text-decoration:none}
nav a:hover{color:var(--text);text-decoration:underline}
main{min-width:0;display:grid;gap:3.5rem;padding-top:2rem}
section{display:grid;grid-template-columns:minmax(0,1fr);gap:1rem;min-width:0;scroll-margin-top:1rem}
section>h2{padding-top:1rem;border-top:1px solid var(--line)}
@media (min-width:64rem){
 .body{display:grid;grid-template-columns:11.5rem minmax(0,1fr);gap:3rem;
  border-top:1px solid var(--line)}
 nav{position:sticky;top:0;align-self:start;padding-top:2rem;max-height:100vh;overflow:auto}
 nav ol{display:grid;gap:.4rem}
 main>section:first-child>h2{border-top:0;padding-top:0}
}
@media (max-width:63.99rem){nav{border-block:1px solid var(--line);padding:.6rem 0}
 main>section:first-child>h2{border-top:0;padding-top:0}}
.verdict{border-left:4px solid var(--tone);background:var(--raised);padding:1rem 1.25rem;
 border-radius:0 8px 8px 0;display:grid;gap:.35rem}
.verdict strong{font-size:1.125rem;line-height:1.35;text-wrap:balance;overflow-wrap:anywhere}
.facts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,15rem),1fr));
 gap:.9rem 2rem;margin:0}
.facts div{min-width:0}
.facts dt{color:var(--muted);font-size:.8125rem}
.facts dd{margin:0;overflow-wrap:anywhere;font-variant-numeric:tabular-nums}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,9.5rem),1fr));gap:.75rem;
 margin:0}
.tiles div{border:1px solid var(--line);border-radius:8px;padding:.7rem .9rem;min-width:0}
.tiles dt{color:var(--muted);font-size:.8125rem}
.tiles dd{margin:0;font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
.tiles dd b{font-size:1.375rem;font-weight:600;letter-spacing:-.01em;display:block;line-height:1.3}
.tiles dd small{color:var(--muted);font-size:.8125rem}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,21rem),1fr));
 gap:2.25rem 2.75rem;align-items:start}
figure{margin:0;display:grid;gap:.5rem;min-width:0}
figcaption{display:grid;gap:.2rem}
figcaption p{font-size:.9375rem;color:var(--muted)}
.charts>figure:only-child{max-width:44rem}
.charts>figure.square{max-width:26rem}
svg{display:block;overflow:visible;font:12.5px system-ui,-apple-system,"Segoe UI",Roboto,
 "Noto Sans",sans-serif;font-variant-numeric:tabular-nums}
svg.stretched{overflow:hidden}
svg text{fill:var(--text);unicode-bidi:isolate}
svg .number{font-weight:600}
svg .tick,svg .axis-name{fill:var(--muted);font-size:11.5px}
svg .halo,svg .label,svg .number{paint-order:stroke;stroke:var(--ground);stroke-width:3px;
 stroke-linejoin:round}
svg .fill{fill:var(--tone)}
svg .ring{fill:var(--ground);stroke:var(--tone);stroke-width:2}
svg .point{fill:var(--tone);fill-opacity:.45}
svg .stroke{fill:none;stroke:var(--tone);stroke-width:2;vector-effect:non-scaling-stroke;
 stroke-linejoin:round}
svg .dashed{stroke-dasharray:5 4}
svg .band{fill:var(--tone);fill-opacity:.16}
svg .track{fill:var(--raised)}
svg .grid{stroke:var(--line)}
svg .axis{stroke:var(--plain)}
svg .mark{stroke:var(--plain);stroke-dasharray:4 3;stroke-width:1.25;fill:none}
svg .whisker{stroke:var(--text);stroke-width:1.25}
.legend{display:flex;flex-wrap:wrap;gap:.2rem 1rem;font-size:.8125rem;color:var(--muted);margin:0;
 padding:0;list-style:none}
.legend li::before{content:"";display:inline-block;width:.7em;height:.7em;border-radius:2px;
 background:var(--tone);margin-right:.4em}
details{font-size:.875rem}
summary{cursor:pointer;color:var(--muted);width:fit-content}
summary:hover{color:var(--text)}
.scroll{overflow-x:auto;max-width:100%}
details .scroll{max-height:24rem;overflow:auto;margin-top:.5rem}
table{border-collapse:collapse;font-size:.875rem;font-variant-numeric:tabular-nums;min-width:min(100%,18rem)}
caption{text-align:left;color:var(--muted);padding-bottom:.35rem}
th,td{padding:.35rem .9rem .35rem 0;text-align:left;vertical-align:baseline;
 border-bottom:1px solid var(--line)}
thead th{color:var(--muted);font-weight:500;font-size:.8125rem;white-space:nowrap}
tbody th{font-weight:500;overflow-wrap:anywhere;min-width:8.5em;max-width:22rem}
td{max-width:34rem;overflow-wrap:anywhere}
th.n,td.n{text-align:right;white-space:nowrap}
td.n:last-child,th.n:last-child{padding-right:0}
.heat td{padding:.35rem .6rem;text-align:right;white-space:nowrap;border:1px solid var(--ground);
 background:color-mix(in oklab,var(--model) calc(var(--share)*38%),var(--raised));
 print-color-adjust:exact;-webkit-print-color-adjust:exact}
.heat th{padding:.35rem .6rem;border-color:transparent}
.heat thead th{text-align:right;white-space:normal;min-width:4.2em;overflow-wrap:anywhere}
.heat thead th:first-child{text-align:left}
.badge{display:inline-block;font-size:.75rem;font-weight:600;color:var(--tone);
 border:1px solid var(--tone);border-radius:99px;padding:0 .6em;white-space:nowrap}
.findings{list-style:none;margin:0;padding:0;display:grid;gap:.75rem}
.findings>li{border:1px solid var(--line);border-left:4px solid var(--tone);border-radius:8px;
 padding:.8rem 1rem;display:grid;gap:.3rem;min-width:0}
.findings h3{text-wrap:wrap;display:flex;flex-wrap:wrap;gap:.25rem .6rem;align-items:baseline}
.absent{font-size:.9375rem;color:var(--muted);margin:0;padding-left:1.1rem;display:grid;gap:.3rem}
.absent b{color:var(--text);font-weight:500}
footer{margin-top:3rem;padding-top:1rem;border-top:1px solid var(--line);color:var(--muted);
 font-size:.8125rem}
@media print{
 @page{size:A4;margin:16mm 14mm}
 :root{color-scheme:light;"""
    + _variables(LIGHT)
    + """}
 html{font-size:10pt}
 body{background:none}
 nav,.skip,details{display:none}
 .frame{max-width:none;padding:0}
 .body{display:block;border-top:0}
 main{gap:1.75rem;padding-top:.5rem}
 section{break-inside:auto}
 h2,h3,figcaption{break-after:avoid}
 figure,tr,.verdict,.findings>li,.tiles div{break-inside:avoid}
 .scroll{overflow:visible}
 svg *,.verdict,.legend li::before{print-color-adjust:exact;-webkit-print-color-adjust:exact}
}
"""
)


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a page, which the contents list."""

    key: str  # its id, of letters and dashes
    title: str
    body: Markup


def write_page(
    title: str, kicker: str, lead: Content, sections: Sequence[Section], footer: str
) -> str:
    """
    Write a whole page.

    Args:
        title: What the page is about.
        kicker: What kind of page it is.
        lead: What stands below the title.
        sections: In their order.
        footer: How the page was made.
    """
    entries = [element("li", element("a", s.title, href=f"#{s.key}")) for s in sections]
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("meta", name="viewport", content="width=device-width,initial-scale=1"),
        element("meta", name="referrer", content="no-referrer"),
        element("title", f"{title} · {kicker}"),
        Markup(f"<style>{STYLE}</style>"),
    )
    parts = [
        element("section", element("h2", s.title), s.body, id=s.key, aria_label=s.title[:120])
        for s in sections
    ]
    body = element(
        "body",
        element("a", "Skip to the content", href="#content", class_="skip"),
        element(
            "div",
            element("header", element("p", kicker, class_="kicker"), element("h1", title), lead),
            element(
                "div",
                element("nav", element("ol", entries), aria_label="Contents"),
                element("main", parts, id="content"),
                class_="body",
            ),
            element("footer", footer),
            class_="frame",
        ),
    )
    page = element("html", head, body, lang="en")
    return f"<!doctype html>\n{page}\n"


def show_chart(chart: Chart, *, square: bool = False) -> Markup:
    """Write a chart with its sentence, legend, and the table of its data behind a disclosure."""
    legend = None
    if chart.legend:
        items = [
            element("li", isolated(name, 60), class_=f"tone-{tone}") for tone, name in chart.legend
        ]
        legend = element("ul", items, class_="legend")
    return element(
        "figure",
        element(
            "figcaption", element("h3", isolated(chart.title)), element("p", chart.sentence), legend
        ),
        chart.drawing,
        show_details("Data", show_table(chart.header, chart.rows, label=chart.title)),
        class_="square" if square else None,
    )


def show_charts(charts: Sequence[Markup]) -> Markup:
    """Write charts side by side where there is room."""
    return element("div", charts, class_="charts")


def show_details(summary: str, *content: Content) -> Markup:
    """Write content behind a disclosure."""
    return element("details", element("summary", summary), content)


def show_table(
    header: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    label: str,
    most: int = LISTED_ROWS,
) -> Markup:
    """
    Write a table whose first column names its rows.

    Args:
        header: Names of the columns.
        rows: Numbers are written to the right, everything else as text; None stays empty.
        label: What the table holds, for readers that do not see it.
        most: Rows that are shown.
    """
    shown = rows[:most]
    right = [
        bool(shown) and all(_is_number(row[place]) for row in shown) and place > 0
        for place in range(len(header))
    ]
    heads = [
        element("th", isolated(name, 40), scope="col", class_="n" if numeric else None)
        for name, numeric in zip(header, right, strict=True)
    ]
    body = []
    for row in shown:
        cells = [
            element("td", _cell(value), class_="n" if numeric else None)
            for value, numeric in zip(row[1:], right[1:], strict=True)
        ]
        body.append(element("tr", element("th", _cell(row[0]), scope="row"), cells))
    caption = None
    if len(rows) > most:
        caption = element("caption", f"{most:,} of {len(rows):,} rows")
    table = element(
        "table", caption, element("thead", element("tr", heads)), element("tbody", body)
    )
    return _scrolled(table, label)


def show_heat_table(
    header: Sequence[str],
    rows: Sequence[tuple[str, Sequence[float | None]]],
    *,
    label: str,
    low: float = 0.0,
    high: float = 1.0,
    digits: int = 2,
) -> Markup:
    """
    Write a table of numbers whose cells are shaded from `low` to `high`.

    Args:
        header: What stands in the corner, and the names of the columns.
        rows: Name and numbers of each; None stays empty.
        label: What the table holds, for readers that do not see it.
        low: The number without shade.
        high: The number with the deepest shade.
        digits: Decimals.
    """
    corner, *names = header
    heads = [element("th", corner, scope="col")]
    heads += [element("th", isolated(name, 24), scope="col") for name in names]
    body = []
    for name, values in rows:
        cells = []
        for value in values:
            known = value is not None and math.isfinite(value)
            share = (value - low) / ((high - low) or 1.0) if known and value is not None else 0.0
            text = f"{value:,.{digits}f}" if known else ""
            shade = round(min(max(share, 0.0), 1.0) * SHADES)
            cells.append(element("td", text, class_=f"shade-{shade}"))
        body.append(element("tr", element("th", isolated(name, 30), scope="row"), cells))
    table = element("table", element("thead", element("tr", heads)), element("tbody", body))
    return element("div", _scrolled(table, label), class_="heat")


def show_facts(facts: Sequence[tuple[str, Content]]) -> Markup:
    """Write names with their values."""
    return element("dl", _pairs(facts), class_="facts")


def show_tiles(tiles: Sequence[tuple[str, str, str]]) -> Markup:
    """Write key figures: name, figure, and a note below it."""
    pairs = [
        (name, join(element("b", figure), element("small", note))) for name, figure, note in tiles
    ]
    return element("dl", _pairs(pairs), class_="tiles")


def show_verdict(tone: Tone, sentence: Content, *details: Content) -> Markup:
    """Write the most important sentence of a page."""
    below = [element("p", each) for each in details if each]
    return element("div", element("strong", sentence), below, class_=f"verdict tone-{tone}")


def show_badge(tone: Tone, text: str) -> Markup:
    """Write a word in a coloured outline."""
    return element("span", text, class_=f"badge tone-{tone}")


def show_absent(items: Sequence[tuple[str, str]]) -> Markup:
    """List what a page does not hold: a name, and how to get it."""
    entries = [element("li", element("b", name), ": ", code_spans(how)) for name, how in items]
    return element("ul", entries, class_="absent")


def code_spans(text: str) -> Markup:
    """
    Write a sentence of ours in which backquotes mark code.

    >>> code_spans("Run `clewline doctor`.")
    'Run <code>clewline doctor</code>.'
    """
    parts = text.split("`")
    return join([element("code", part) if n % 2 else part for n, part in enumerate(parts)])


def _pairs(pairs: Sequence[tuple[str, Content]]) -> list[Markup]:
    return [element("div", element("dt", name), element("dd", value)) for name, value in pairs]


def _scrolled(table: Markup, label: str) -> Markup:
    return element(
        "div", table, class_="scroll", role="region", aria_label=label[:120], tabindex="0"
    )


def _is_number(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _cell(value: object) -> Content:
    if value is None or isinstance(value, Markup):
        return value
    return write(value) if _is_number(value) else isolated(value)
