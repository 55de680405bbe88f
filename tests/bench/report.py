"""The page that `make bench` ends with: every ratio of this run beside that of the last release, in one HTML file.

    python tests/bench/report.py             # reads bench.jsonl (or $BENCH_RATIOS), writes bench.html beside it
    python tests/bench/report.py --release   # makes this run the last release, under the package's version

The figures of 0.3.0 in last_release.json are of another processor, with AVX-512, but for those of one thread and of a
shared core: ratios may be compared over processors, with care.
"""

from __future__ import annotations

import html
import importlib.metadata
import json
import sys
from pathlib import Path

import plotly.graph_objects as go
from ratios import FILE

LAST = Path(__file__).with_name("last_release.json")


def this_run(lines: str) -> dict[str, float]:
    """Ratio by name, the latest of each."""
    found = (json.loads(line) for line in lines.splitlines())
    return {one["name"]: one["ratio"] for one in found}


def page(now: dict[str, float], last: dict[str, float], release: str) -> str:
    """Points on a logarithmic axis, and the same as a table; whatever is in one of both only has a gap."""
    names = [*dict.fromkeys([*now, *last])]
    figure = go.Figure([
        go.Scatter(x=[last.get(name) for name in names], y=names, mode="markers", name=release,
                   marker={"symbol": "line-ns", "size": 12, "line": {"width": 2, "color": "#8a8f98"}}),
        go.Scatter(x=[now.get(name) for name in names], y=names, mode="markers", name="this run",
                   marker={"size": 9, "color": "#1f6feb"})])
    figure.add_vline(x=1, line={"color": "#d1d5db"})
    figure.update_layout(template="plotly_white", height=140 + 20 * len(names), margin={"l": 20, "r": 20},
                         xaxis={"type": "log", "title": "times; more is better", "side": "top"},
                         yaxis={"range": [len(names) - 0.5, -0.5], "automargin": True},
                         legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"})

    def cell(ratio: float | None) -> str:
        return f"<td>{'' if ratio is None else f'{ratio:.2f}×'}</td>"

    def change(name: str) -> str:
        return f"<td>{f'{100 * (now[name] / last[name] - 1):+.0f} %' if name in now and name in last else ''}</td>"

    rows = "\n".join(f"<tr><td>{html.escape(name)}</td>{cell(now.get(name))}{cell(last.get(name))}{change(name)}</tr>"
                     for name in names)
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>Benchmarks</title>
<style>body{{font:15px system-ui;max-width:1100px;margin:2rem auto;padding:0 1rem}}
td,th{{padding:.2rem .8rem;text-align:right;font-variant-numeric:tabular-nums;border-bottom:1px solid #e5e7eb}}
td:first-child,th:first-child{{text-align:left}}table{{border-collapse:collapse}}</style>
<h1>Every ratio, beside that of {html.escape(release)}</h1>
{figure.to_html(full_html=False, include_plotlyjs=True)}
<table><tr><th>what</th><th>this run</th><th>{html.escape(release)}</th><th>change</th></tr>
{rows}</table></html>
"""


def main() -> None:
    now = this_run(FILE.read_text(encoding="utf-8"))
    if "--release" in sys.argv:
        made = {"release": importlib.metadata.version("bra"), "ratios": now}
        LAST.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        return
    last = json.loads(LAST.read_text(encoding="utf-8"))
    out = FILE.with_suffix(".html")
    out.write_text(page(now, last["ratios"], last["release"]), encoding="utf-8")
    print(f"{len(now)} ratios: {out}")


if __name__ == "__main__":
    main()
