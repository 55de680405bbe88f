"""Figures in a page that opens anywhere: plotly.js once and inline, light or dark as the reader's system is."""

from __future__ import annotations

import json
from functools import cache

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from bra.figures.template import export_config, locale_config, template
from bra.messages import ENGLISH, Language, message

_DRAW = """
const templates = $templates, words = $words, locale = $locale, dark = matchMedia("(prefers-color-scheme: dark)");
const save = (form, scale) => ({ name: form, title: words[form], icon: Plotly.Icons.camera, click: (graph) =>
  Plotly.downloadImage(graph, { format: form, scale, filename: graph.dataset.name,
    width: graph.clientWidth, height: graph.clientHeight }) });
for (const place of document.querySelectorAll(".figure")) {
  const { data, layout, config } = JSON.parse(place.querySelector("script").textContent);
  const graph = document.createElement("div");
  graph.dataset.name = place.dataset.name;
  place.append(graph);
  const draw = () => Plotly.react(graph, data, { ...layout, template: templates[Number(dark.matches)] }, {
    ...config, ...locale,
    modeBarButtonsToRemove: [...config.modeBarButtonsToRemove, "toImage"],
    modeBarButtonsToAdd: [...config.modeBarButtonsToAdd, save("svg", 1), save("png", 4)] });
  draw();
  dark.addEventListener("change", draw);
}
"""


def figure_html(figure: go.Figure, name: str) -> str:
    """A figure's place in a page; `figures_script` draws it.

    Args:
        figure: in the language of the page.
        name: of the files that its mode bar saves, from `file_name`.
    """
    made = json.loads(figure.to_json())
    made["layout"].pop("template", None)
    content = json.dumps({**made, "config": export_config(name)}, ensure_ascii=False)
    # Nothing in a script of data ends it, whatever a stranger called his picture.
    content = content.replace("<", "\\u003c")
    return f'<div class="figure" data-name="{name}"><script type="application/json">{content}</script></div>'


@cache
def _every_report() -> tuple[str, str]:
    """What is the same in each: plotly.js, and both templates as JSON. Reading 4.7 MB takes longer than the rest."""
    templates = [json.loads(go.Figure(layout={"template": template(dark)}).to_json())["layout"]["template"]
                 for dark in (False, True)]
    return get_plotlyjs(), json.dumps(templates)


def figures_script(language: Language = ENGLISH) -> str:
    """What draws every figure of a page; it stands once, at its end."""
    plotly, templates = _every_report()
    words = json.dumps({"svg": language.translate(message("Save as SVG")),
                        "png": language.translate(message("Save as PNG, 4 pixels for each"))}, ensure_ascii=False)
    locale = json.dumps(locale_config(language), ensure_ascii=False)
    code = _DRAW.replace("$templates", templates).replace("$words", words).replace("$locale", locale)
    return f"<script>{plotly}</script><script>{code}</script>"
