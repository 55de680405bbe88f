"""A chapter's text taken apart: its claim, its sentences, what to try, and the question with its answer.

A file has these under a first-level heading and three second-level ones, in this order in every language; the choices
of the question are a list, the right one marked `(x)`, the others `( )`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from dashboard.i18n import chapter


@dataclass(frozen=True, slots=True)
class Chapter:
    """One chapter, in Markdown.

    Attributes:
        claim: one sentence.
        words: the sentences that make it plain.
        trying: what to try.
        question: to be answered before one goes on.
        choices: what one may answer.
        right: number of the right one, from 0.
        answer: why it is right.
    """

    claim: str
    words: str
    trying: str
    question: str
    choices: tuple[str, ...]
    right: int
    answer: str


def parse_chapter(text: str) -> Chapter:
    """A chapter's file as a record.

    Raises:
        ValueError: the file is not made of these parts, or has not one right choice.
    """
    opening, trying, asked, answer = (part.strip() for part in re.split(r"^## .*$", text, flags=re.MULTILINE))
    claim, _, sentences = opening.removeprefix("# ").partition("\n")
    question, *lines = re.split(r"^- ", asked, flags=re.MULTILINE)
    marks = [line.startswith("(x) ") for line in lines]
    if marks.count(True) != 1 or not all(line.startswith(("(x) ", "( ) ")) for line in lines):
        raise ValueError(f"the question of “{claim}” needs choices of which one is right: {lines}")
    return Chapter(claim.strip(), sentences.strip(), trying, question.strip(),
                   tuple(" ".join(line[4:].split()) for line in lines), marks.index(True), answer)


def of_step(step: int) -> Chapter:
    """A chapter of the lesson in the visitor's language."""
    return parse_chapter(chapter(f"learn_{step}"))
