"""What the run page shows, worked out when a piece of it asks. Reads only; the HTML is in templates/runs, the routes in pages.py."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from sqlmodel import Session

from app.checkpoints import kept, lists, retention
from app.checkpoints import service as checkpoints
from app.checkpoints.kept import Reason
from app.checkpoints.retention import Plan
from app.datasets.tables import SPLITS, paths_of
from app.jobs import queue, stopping
from app.jobs import service as jobs
from app.jobs.states import PATIENCE
from app.launch import preview
from app.metrics import service as metrics
from app.models import ACTIVE, ENDED, Attempt, Job, JobStatus, Run, Sample, Worker
from app.runs import changes, lighter, lineage, schemas, stages
from app.runs import service as runs
from app.runs.lineage import Child, Link
from app.runs.page import endings, history, legs, newest, saved, settings_table, track
from app.runs.page.endings import Ending
from app.runs.page.facts import facts
from app.runs.page.newest import Newest
from app.runs.page.saved import Saved
from app.runs.page.settings_table import Setting
from app.runs.page.track import Leg
from app.runs.schemas import RunDetail, StageOut
from app.samples import cards
from app.samples import service as samples
from app.samples.cards import Card
from panollava.config import flat
from panollava.stages import Stage

MOST_ANSWERS = 2000
"""To samples, of which the page makes cards; the API pages through all."""
MOST_FILES = 500
"""Checkpoints that the page looks at, counted with their second names; the list of checkpoints pages through all."""


@dataclass(frozen=True)
class RunView:
    """One run, at one moment, for one reader."""

    session: Session
    row: Run
    now: datetime
    asked: Stage | Literal["all"] | None
    """The stage that the reader wants to look at; None for the one that the run is at."""

    patience: int = int(PATIENCE.total_seconds())
    newest_answers: int = cards.NEWEST
    stopping: str = stopping.WORDS

    @cached_property
    def state(self) -> runs.RunState:
        return runs.state(self.session, self.row)

    @cached_property
    def run(self) -> RunDetail:
        return RunDetail.model_validate(schemas.describe(self.session, [self.state])[0])

    @cached_property
    def current(self) -> StageOut:
        """The first stage that has not succeeded, or the last."""
        return next(each for each in self.run.stages if each.stage is self.state.current.stage)

    @property
    def is_active(self) -> bool:
        """Somebody works on it, or should."""
        return self.current.status in ACTIVE

    @property
    def is_open(self) -> bool:
        """It waits or is at work."""
        return self.current.status not in ENDED

    @cached_property
    def is_terminals(self) -> bool:
        """A terminal is at it, and nobody here hears of it until it is imported again."""
        return self.job is not None and jobs.is_terminals(self.session, self.job)

    @property
    def can_stop(self) -> bool:
        return not self.is_terminals and self.current.status in (JobStatus.queued, JobStatus.starting, JobStatus.running)

    @property
    def can_save(self) -> bool:
        return not self.is_terminals and self.current.status in (JobStatus.starting, JobStatus.running)

    @property
    def can_resume(self) -> bool:
        return self.current.status in (JobStatus.failed, JobStatus.stopped)

    @cached_property
    def job(self) -> Job | None:
        """The current stage's."""
        return self.state.current.job

    @cached_property
    def worker(self) -> Worker | None:
        """Who works on it, or did last."""
        return self.session.get(Worker, self.job.worker_id) if self.job and self.job.worker_id else None

    @cached_property
    def attempts(self) -> list[Attempt]:
        """Of all stages, oldest first."""
        return [attempt for attempt, _stage in runs.attempts(self.session, self.row)]

    @property
    def started_at(self) -> datetime | None:
        return self.attempts[0].started_at if self.attempts else None

    @property
    def tags(self) -> list[str]:
        """A few settings that tell runs apart at a glance."""
        return facts(self.row.config)

    @property
    def chosen(self) -> Stage | None:
        """The stage that is looked at; None for all of them."""
        return None if self.asked == "all" else self.asked or self.current.stage

    def logged(self, asked: Stage | None) -> Job | None:
        """Whose log is shown: the job of the stage asked for, else of the last that has begun. None where a gate has let nothing begin."""
        begun = {each.stage: each.job for each in self.state.stages if each.job}
        return begun.get(asked) if asked else next(reversed(begun.values()), None)

    @property
    def is_gated(self) -> bool:
        return self.current.status == runs.GATED

    @property
    def stale(self) -> StageOut | None:
        """The first stage that was trained from what has been begun again since."""
        return next((each for each in self.run.stages if each.stale_at), None)

    def why_not_again(self, stage: Stage) -> str | None:
        """Why a stage cannot be trained again now; None if it can."""
        return stages.why_not(self.state, next(each for each in self.state.stages if each.stage is stage))

    @cached_property
    def open_job(self) -> Job | None:
        """What waits or is at work, of the run's stages, evaluations and exports: until it has ended the run is neither archived nor deleted."""
        return changes.open_job(self.session, self.row)

    # how it ended

    @cached_property
    def ending(self) -> Ending | None:
        """Of a run that failed or was stopped."""
        return endings.explain(self.session, self.job, self.current.status == JobStatus.failed) if self.job and self.can_resume else None

    @cached_property
    def lighter(self) -> str | None:
        """`accumulation 1 → 2`: the settings with which a stage that ran out of memory may do; None where none are known."""
        now = lighter.effective(self.row.config, [self.state.current.row])
        return lighter.in_words(now, self.current.stage, self.current.suggestion) or None

    @cached_property
    def overridden(self) -> dict[Stage, str]:
        """`accumulation 1 → 2` by stage: what was changed since it ran out of memory."""
        told = {each.stage: lighter.in_words(self.row.config, each.stage, each.row.overrides) for each in self.state.stages}
        return {stage: words for stage, words in told.items() if words}

    @cached_property
    def tried_with(self) -> dict[int, str]:
        """The same by attempt id: what each was trained with."""
        found = lighter.in_force(self.session, self.attempts)
        return {each.id: lighter.in_words(self.row.config, self.stage_of(each), found[each.id]) for each in self.attempts}

    @cached_property
    def goes_on_from(self) -> str | None:
        """`finetune@3000`: the checkpoint from which `resume` would continue; None for the start of the stage."""
        checkpoint = checkpoints.last_good(self.session, self.job) if self.job else None
        return f"{self.current.stage}@{checkpoint.step}" if checkpoint else None

    # the track

    @cached_property
    def legs(self) -> list[Leg]:
        return list(legs.gather(self.session, self.state, self.run.stages, self.attempts, self.saved, self.now))

    @property
    def after(self) -> list[Stage]:
        return track.after(self.legs)

    @property
    def chain_left(self) -> float | None:
        """Seconds until the whole chain is done, where that can be told."""
        return track.chain_left(self.legs) if self.is_active else None

    @property
    def chain_ends_at(self) -> datetime | None:
        return None if self.chain_left is None else self.now + timedelta(seconds=self.chain_left)

    # checkpoints

    @cached_property
    def saved(self) -> list[Saved]:
        rows = lists.page(self.session, lists.Wanted(self.row.id), limit=MOST_FILES)
        return saved.gather(rows, [each.row for each in self.state.stages])

    def kept(self, files: Sequence[Saved]) -> dict[int, list[Reason]]:
        """What they are kept for, by the id of their row."""
        return {each.row.id: each.reasons for each in kept.describe(self.session, [file.row for file in files])}

    def retention(self, steps: int | None) -> Plan:
        """What goes under the run's rule, or if it kept so many step checkpoints."""
        rule = retention.rule_of(self.row)
        return retention.plan(self.session, self.row, rule if steps is None else rule.model_copy(update={"steps": steps}))

    # samples

    @cached_property
    def samples(self) -> Sequence[tuple[Sample, Stage]]:
        return samples.page(self.session, self.row.id, limit=MOST_ANSWERS)

    @property
    def sampled(self) -> list[Stage]:
        """The stages that have answered, in training order."""
        return [each.stage for each in self.state.stages if each.stage in {stage for _, stage in self.samples}]

    @property
    def questions(self) -> int:
        return len({(row.url, row.query) for row, _ in self.samples})

    def cards(self, every: bool) -> list[Card]:
        """Of the stage asked for, else of all: the questions are the same."""
        wanted = [each for each in self.samples if self.asked in (None, "all", each[1])]
        return cards.cards(wanted, None if every else cards.NEWEST)

    # lineage

    @property
    def tables(self) -> list[Path]:
        """The data it learns from and is validated on."""
        return list(dict.fromkeys(path for field in SPLITS for path in paths_of(self.row.config, field)))

    @cached_property
    def ancestors(self) -> list[Link]:
        """What it started from, the nearest first."""
        return lineage.ancestors(self.session, self.row)

    @cached_property
    def children(self) -> Sequence[Child]:
        """Runs that started from its checkpoints."""
        return lineage.children(self.session, self.row)

    @property
    def handed(self) -> list[Saved]:
        """The best file of each stage, in training order."""
        return [each for each in reversed(self.saved) if each.is_best]

    # settings, values, history

    @cached_property
    def settings(self) -> list[Setting]:
        return settings_table.table(self.row.config)

    @property
    def changed(self) -> int:
        return sum(each.changed for each in self.settings)

    @property
    def command(self) -> str:
        """What trains the same from a terminal."""
        config = lighter.effective(self.row.config, [each.row for each in self.state.stages])
        values = dict(flat(config))
        changed = [each.name for each in settings_table.table(config) if each.changed]
        return preview.command(None, {"stage": values["stage"]} | {name: values[name] for name in changed})

    @property
    def shown_stage(self) -> Stage:
        """Whose newest values are shown: the chosen stage's, else the current one's."""
        return self.chosen or self.current.stage

    @cached_property
    def newest(self) -> Newest | None:
        return newest.values(self.session, self.row.id, self.shown_stage)

    def stage_of(self, attempt: Attempt) -> Stage:
        return next(each.stage for each in self.state.stages if each.job and each.job.id == attempt.job_id)

    @cached_property
    def series(self) -> list[dict[str, Any]]:
        """What there is to draw, as plain data for the charts."""
        return [schemas.SeriesOut.of(*row).model_dump(mode="json") for row in metrics.series(self.session, self.row.id)]

    @cached_property
    def timeline(self) -> list[dict[str, Any]]:
        return history.told(queue.timeline(self.session, self.row.id), self.attempts)
