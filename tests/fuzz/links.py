"""Query strings as nobody's page writes them."""

from __future__ import annotations

from urllib.parse import quote, urlencode

from hypothesis import strategies as st

from bra.models.catalog import CATALOG, ModelSettings
from dashboard.state.compare_view import Comparison
from dashboard.state.cost_view import CostView
from dashboard.state.example_view import ExampleView
from dashboard.state.learn_view import Lesson
from dashboard.state.view import Selection

KEYS = sorted(
    {
        *(field for field in ModelSettings.__dataclass_fields__),
        "picture",
        "layer",
        "whole",
        "a",
        "b",
        "show",
        *(f"b_{field}" for field in ModelSettings.__dataclass_fields__),
        "b_",
        "b_layer",
        "b_b_model",
        *(name for name in Comparison.__dataclass_fields__),
        "rows",
        "columns",
        *(f"cost_{name}" for name in CostView.__slots__),
        *(f"w_{name}" for name in (*ExampleView.__slots__, "x")),
        *(f"learn_{name}" for name in Lesson.__slots__),
        *("part", "scene", "present"),
        "card",
        "lang",
        "step",
        "embed",
        "x",
    }
)
VALUES = (
    "",
    "0",
    "1",
    "-1",
    "7",
    "16",
    "17",
    "49",
    "00007",
    "99999",
    "100000",
    "9" * 5000,
    "1e9",
    "0x10",
    "1.0",
    "nan",
    "inf",
    "-inf",
    "²",
    "٣",
    "１６",
    "½",
    "Ⅷ",
    "1_0",
    " 7 ",
    "7\n",
    "\0",
    "7\0",
    "true",
    "null",
    "None",
    "[]",
    "{}",
    "'",
    '"',
    "<b>",
    "<script>alert(1)</script>",
    "javascript:alert(1)",
    "../../etc/passwd",
    "..\\..\\x",
    "%00",
    "%s%n",
    "{0}",
    "{x}",
    "$x$",
    "`x`",
    "a" * 100_000,
    "\u202e",
    "\ufeff7",
    "🦆",
    "e\u0301" * 50,
    "upload",
    "animal",
    "layers.0",
    "layers.9",
    "model.16.attn",
    "stages.2.0.attn#2",
    "1.1",
    "9999.9999",
    "20000.20000",
    "5000.99999999",
    "-1.5",
    "1.2.3",
    ".",
    "4.7.8",
    "1.1.1.1",
    "2.3.4.5.6.7.8.10.12",
    ".".join(["7"] * 5000),
    "grid",
    "versus",
    "probes",
    "sweeps",
    "macs",
    "ms",
    "qkvo",
    "maxpool",
    "conv",
    "640",
    "1536",
    "32",
    "33",
    "en",
    "zh",
    "zh-CN",
    "flowers",
    "yolov8n-bra",
    "yolov8x-bra",
    "biformer_base",
    "chapters",
    "example",
    "0.0.9",
    "0.0.9_1.1.-9_99.0.1",
    "_".join(["0.0.1"] * 3_000),
    "-5",
    "likeness",
    *CATALOG,
)


def pairs() -> st.SearchStrategy[tuple[str, str]]:
    """A key that some page knows, nearly always, and any value."""
    key = st.sampled_from(KEYS) | st.text(max_size=6)
    value = st.sampled_from(VALUES) | st.text(max_size=8) | st.integers().map(str)
    return st.tuples(key, value)


def queries() -> st.SearchStrategy[str]:
    """Query strings: of known keys, with repeats; those of a possible view, with changed letters; any text."""
    known = st.lists(pairs(), max_size=10).map(lambda found: urlencode(found, errors="surrogatepass"))
    sound = urlencode(
        Selection(settings=ModelSettings("untrained", 5, 3), a=(1, 2)).to_query()
        | Comparison(tab="versus", n_wins=(2, 3)).to_query()
        | CostView(row=3).to_query()
    )
    changed = st.tuples(st.integers(0, len(sound)), st.integers(0, 9), st.text("&=%.+;0a\0", max_size=5)).map(
        lambda at: sound[: at[0]] + at[2] + sound[at[0] + at[1] :]
    )
    return (
        known
        | changed
        | st.text(max_size=60)
        | st.text(max_size=20).map(lambda text: quote(text, errors="surrogatepass"))
    )
