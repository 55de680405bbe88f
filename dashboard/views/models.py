"""Models: the cards of what was trained here, and how to open what was not."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from bra.figures import card as card_figures
from bra.messages import comma_joined
from bra.models.card import WEIGHTS, ModelCard
from bra.models.catalog import CATALOG
from bra.reports.code import card_code
from dashboard import i18n
from dashboard.i18n import option_labels, tr, tr_noop, translate
from dashboard.services import models as model_services
from dashboard.state import session
from dashboard.state.widgets import init_widget
from dashboard.widgets import chart, share
from dashboard.widgets.tables import heads, routing_table, run_table, score_table

EXPLORE = Path(__file__).parent / "explore.py"
# What a card was made with; anything else is the name of a package.
MADE = {"date": tr_noop("date")}
PERCENTS = (tr_noop("shared choices"), tr_noop("depends on the query"), "overlap", tr_noop("overlap of the nearest"))


def choose_card(known: dict[str, ModelCard]) -> ModelCard:
    """Which card to read; the address remembers it."""
    st.subheader(tr("Models that were trained here"), anchor=False)
    names = list(known)
    titles = {key: card.title.partition(":")[0] for key, card in known.items()}
    name = st.segmented_control(tr("Model card"), names, required=True, label_visibility="collapsed",
                                format_func=option_labels(titles),
                                key=init_widget("card", session.linked_card(names), names)) or names[0]
    session.save_card(name)
    return known[name]


def show(card: ModelCard) -> None:
    """The whole card."""
    st.markdown(f"#### {translate(card.title)}")
    st.markdown(translate(card.data))
    entry = next((entry for entry in CATALOG.values() if entry.card == card.name), None)
    if entry is not None and st.button(tr("Look into it"), type="primary", icon=":material/visibility:"):
        session.open_model(entry.key)
        st.switch_page(EXPLORE)

    left, right = st.columns(2, gap="large")
    with left:
        st.markdown("#### " + tr("How well it does"))
        scores = score_table(card)
        st.dataframe(scores, hide_index=True, width="stretch", height="content", column_config=heads(scores[0]))
        st.caption(tr("After the last epoch; mean over seeds, smallest to largest in brackets. The weights are those "
                      "of {run}.", run=card.shipped))
        for sentence in card.comparison:
            st.markdown(f"- {translate(sentence)}")
        for metric in [*next(iter(card.scores.values())), "loss"]:
            chart.draw(card_figures.curves(card, metric, chart.style()), card.name, metric)
    with right:
        st.markdown("#### " + tr("Does its routing mean anything?"))
        for sentence in card.verdict:
            st.markdown(f"- {translate(sentence)}")
        routing = routing_table(card)
        st.dataframe(routing, hide_index=True, height="content", column_config=heads(routing[0], PERCENTS))
        st.caption(tr("Shared choices: the share of all choices on the topk windows chosen most. Depends on the query: "
                      "the share of the affinities' variance that does; above 60 % is good. Overlap: likeness of "
                      "labels."))
        st.markdown(tr("Share of full attention that falls on the routed windows"))
        chart.draw(card_figures.quality(card, "recall", chart.style()), card.name, "recall")
        if any(row.overlap is not None for row in card.quality["trained"]):
            st.markdown(tr("Likeness of labels between a window and those it is routed to"))
            chart.draw(card_figures.quality(card, "overlap", chart.style()), card.name, "overlap")
        st.caption(tr("Mean over {n} pictures that it did not learn from, and over their windows. Controls are those "
                      "of the trained layers.", n=card.judged))
        st.markdown("#### " + tr("What it is not good for"))
        for sentence in card.limits:
            st.markdown(f"- {translate(sentence)}")
    runs = run_table(card)
    if any(row["seeds"] > 1 for row in runs) or len({row["variant"] for row in runs}) > 1:
        st.markdown(tr("Routing of every run: mean over seeds, smallest to largest in brackets"))
        st.dataframe(runs, hide_index=True, height="content", column_config=heads(runs[0]))
    st.markdown("#### " + tr("How it was made"))
    st.code(card.command, language="bash", wrap_lines=True)
    made = comma_joined([f"{translate(MADE.get(what, what))} {value}" for what, value in card.made_with.items()])
    st.caption(tr("{made}. Learned at {side} px. Data: {licence}", made=translate(made), side=card.side,
                  licence=translate(card.licence)))
    share.offer(card_code(card.name), files=[
        share.File(tr("Weights, safetensors"), (WEIGHTS / f"{card.name}.safetensors").read_bytes,
                   f"{card.name}.safetensors"),
        share.File(tr("Card, JSON"), card.to_json(), f"{card.name}.json")])


def main() -> None:
    """Draw the page."""
    known = model_services.model_cards()
    card = choose_card(known)
    show(card)
    st.divider()
    st.markdown(i18n.chapter("models"))


if __name__ == "__main__":
    main()
