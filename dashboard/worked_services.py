"""Numbers of the worked example, cached; what is cached is shared and read-only."""

from __future__ import annotations

import streamlit as st

from bra.worked import FIRST, Tokens, Worked, work
from dashboard.handout import NUDGED
from dashboard.worked_view import WorkedView


@st.cache_resource(max_entries=64, show_spinner=False)
def worked(tokens: Tokens, topk: int) -> Worked:
    """The example run on 16 tokens of two numbers."""
    return work(tokens, topk)


def handout_numbers() -> tuple[Worked, Worked]:
    """The numbers of the handout, and those after the change that its last question asks about."""
    return worked(FIRST, 1), worked(WorkedView().with_number(*NUDGED).tokens, 1)
