"""Watched trainings: the numbers of all their epochs, and the files that are made of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bra.messages import Language
from bra.readers.timeline import Timeline, read_timeline
from bra.reports.timeline import animation_webp, timeline_html
from bra.viewer.pack import Place
from dashboard.i18n import tr_noop
from dashboard.runtime.jobs import Progress
from dashboard.runtime.server import HEAVY, QUICK
from dashboard.runtime.wait import run_cached
from dashboard.services.server import server
from dashboard.state.upload import Upload


@dataclass(frozen=True, slots=True)
class TimelineKey:
    """The numbers of a file."""

    digest: str


@dataclass(frozen=True, slots=True)
class AnimationKey:
    """The animation of a layer's routing."""

    digest: str
    layer: str
    queries: tuple[tuple[str, Place], ...]


@dataclass(frozen=True, slots=True)
class TimelineReportKey:
    """The page about a layer."""

    animation: AnimationKey
    epoch: int
    name: str
    language: str


def timeline_of(file: Upload) -> Timeline:
    """The numbers of every epoch in a visitor's file.

    Raises:
        BRAError: it is no such file.
    """
    return run_cached(server(), TimelineKey(file.digest), lambda _: read_timeline(file.data),
                      tr_noop("Reading the epochs …"), QUICK)


def animation_file(file: Upload, layer: str, queries: Mapping[str, Place]) -> bytes:
    """The routing of the queries over the epochs, as an animated WebP."""
    timeline = timeline_of(file)

    def work(progress: Progress) -> bytes:
        return animation_webp(timeline, file.data, layer, dict(queries), progress)

    return run_cached(server(), AnimationKey(file.digest, layer, tuple(queries.items())), work,
                      tr_noop("Drawing the epochs …"), HEAVY)


def timeline_report(file: Upload, layer: str, epoch: int, queries: Mapping[str, Place], language: Language) -> str:
    """The page about a layer of a watched training."""
    timeline = timeline_of(file)
    # Before, since a job may wait for no other job.
    animation = b"" if timeline.photo is None else animation_file(file, layer, queries)
    key = TimelineReportKey(AnimationKey(file.digest, layer, tuple(queries.items())), epoch, file.name, language.code)
    return run_cached(server(), key, lambda _: timeline_html(timeline, animation, layer, epoch, file.name, language),
                      tr_noop("Writing the file …"), QUICK)
