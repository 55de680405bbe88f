"""One model card on a page: what it learned from, how well, whether its routing means anything, and its files."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from bra.models.card import WEIGHTS, ModelCard
from bra.models.catalog import CATALOG
from dashboard import state
from dashboard.figures import cards as charts

EXPLORE = Path(__file__).parent / "views" / "explore.py"
RECALL = "Share of full attention that falls on the routed windows"
OVERLAP = "Likeness of labels between a window and those it is routed to"


def choose_card(known: dict[str, ModelCard]) -> ModelCard:
    """Which card to read; the address remembers it."""
    st.subheader("Models that were trained here", anchor=False)
    names = list(known)
    name = st.segmented_control("Model card", names, format_func=lambda key: known[key].title.split(":")[0],
                                key=state.card(names), required=True, label_visibility="collapsed") or names[0]
    state.save_card(name)
    return known[name]


def show(card: ModelCard) -> None:
    """The whole card."""
    st.markdown(f"#### {card.title}")
    st.markdown(card.data)
    entry = next((entry for entry in CATALOG.values() if entry.card == card.name), None)
    with st.container(horizontal=True):
        if entry is not None and st.button("Look into it", type="primary", icon=":material/visibility:"):
            state.open_model(entry.key)
            st.switch_page(EXPLORE)
        st.download_button("Weights, safetensors", (WEIGHTS / f"{card.name}.safetensors").read_bytes,
                           f"{card.name}.safetensors", on_click="ignore")
        st.download_button("Card, JSON", card.to_json(), f"{card.name}.json", "application/json", on_click="ignore")

    left, right = st.columns(2, gap="large")
    with left:
        st.markdown("#### How well it does")
        st.dataframe(charts.score_table(card), hide_index=True, width="stretch")
        st.caption(f"After the last epoch; mean over seeds, smallest to largest in brackets. The weights are those of "
                   f"{card.shipped}.")
        for sentence in card.comparison:
            st.markdown(f"- {sentence}")
        for metric in [*next(iter(card.scores.values())), "loss"]:
            label = {"loss": "training loss"}.get(metric, metric.replace("_", " "))
            st.vega_lite_chart(charts.curves(card, metric, label), width="stretch")
    with right:
        st.markdown("#### Does its routing mean anything?")
        for sentence in card.verdict:
            st.markdown(f"- {sentence}")
        st.vega_lite_chart(charts.quality(card, "recall", RECALL), width="stretch")
        if any(row.overlap is not None for row in card.quality["trained"]):
            st.vega_lite_chart(charts.quality(card, "overlap", OVERLAP), width="stretch")
        st.caption(f"Mean over {card.judged} pictures that it did not learn from, and over their windows. Controls are "
                   "those of the trained layers.")
        st.markdown("#### What it is not good for")
        for sentence in card.limits:
            st.markdown(f"- {sentence}")
    st.markdown("#### How it was made")
    st.code(card.command, language="bash", wrap_lines=True)
    made = ", ".join(f"{what} {value}" for what, value in card.made_with.items())
    st.caption(f"{made}. Learned at {card.side} px. Data: {card.licence}")


