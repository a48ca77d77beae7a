"""Example answers become rows of their run; what a resumed attempt answers anew replaces what was behind its step."""

from sqlmodel import select

from app.models import Attempt, Job, JobStatus, Run, Sample
from app.samples import service as samples
from app.samples.cards import NEWEST, cards
from panollava import events
from panollava.events import StageEvent
from panollava.stages import Stage


def answer(step, prediction, query="What?", references=("a red ball",)):
    return events.Sample(step=step, url="a.jpg", query=query, references=list(references), prediction=prediction)


def told(session, job, stage=None, **more):
    return [(row.step, row.prediction) for row, _ in samples.page(session, job.run_id, stage, **more)]


def test_answers_are_kept_with_their_run_and_stage_newest_first(house, session):
    job, attempt = house.running(session)
    house.tell(session, job, attempt, answer(10, "a ball"), answer(20, "a red ball"))
    ((row, stage), _) = samples.page(session, job.run_id)
    assert (row.step, row.query, row.references, row.attempt, stage) == (20, "What?", ["a red ball"], 1, Stage.resampler)
    assert told(session, job) == [(20, "a red ball"), (10, "a ball")]
    assert told(session, job, Stage.finetune) == []


def test_a_page_goes_on_where_the_one_before_ended(house, session):
    job, attempt = house.running(session)
    house.tell(session, job, attempt, *(answer(step, str(step)) for step in range(1, 6)))
    rows = samples.page(session, job.run_id, limit=3)
    assert [row.step for row, _ in rows] == [5, 4, 3]
    assert told(session, job, cursor=rows[-1][0].id) == [(2, "2"), (1, "1")]


def test_what_lies_behind_the_step_that_a_newer_attempt_went_on_from_does_not_count(house, session):
    job, attempt = house.running(session)
    house.tell(session, job, attempt, *(answer(step, f"first {step}") for step in (10, 20, 30)))
    session.add(Attempt(job_id=job.id, number=2, directory="", resumed_step=20, started_at=attempt.started_at))
    session.flush()
    assert told(session, job) == [(20, "first 20"), (10, "first 10")]
    newer = session.exec(select(Attempt).where(Attempt.number == 2)).one()
    samples.record(session, job, newer, answer(30, "second 30"))
    session.flush()
    assert told(session, job) == [(30, "second 30"), (20, "first 20"), (10, "first 10")]


def test_they_go_when_their_run_goes(house, session):
    job, attempt = house.running(session)
    house.tell(session, job, attempt, answer(10, "a ball"))
    session.delete(session.get_one(Run, job.run_id))
    session.flush()
    assert session.exec(select(Sample)).all() == []


def test_a_fenced_attempt_keeps_nothing(house, session):
    job, attempt = house.running(session)
    session.get_one(Job, job.id).status = JobStatus.lost
    session.flush()
    assert not house.tell(session, job, attempt, answer(10, "a ball"), StageEvent(name="resampler", status="started"))
    assert session.exec(select(Sample)).all() == []


def row(step, prediction, query="What?", references=("a red ball", "one ball")):
    return Sample(step=step, url="a.jpg", query=query, references=list(references), prediction=prediction)


def shown(*rows):
    return cards([(each, Stage.resampler) for each in reversed(rows)])


def test_a_card_shows_the_newest_answer_against_the_reference_most_like_it():
    (card,) = shown(row(10, "nothing"), row(20, "a blue ball"))
    assert [answer.step for answer in card.answers] == [20, 10]
    assert [(piece.text, piece.mark) for piece in card.answers[0].pieces] == [
        ("a", "same"),
        (" ", ""),
        ("blue", "extra"),
        (" ", ""),
        ("ball", "same"),
    ]
    assert card.answers[0].reference == 1
    assert [piece.text for piece in card.references[0] if piece.mark == "missing"] == ["red"]
    assert not any(piece.mark for piece in card.references[1])


def test_cards_stand_in_the_order_in_which_the_questions_are_asked_and_hold_the_newest_few():
    rows = [row(step, f"{query} {step}", query) for step in range(1, 9) for query in ("What?", "Where?")]
    first, second = shown(*rows)
    assert (first.query, second.query) == ("What?", "Where?")
    assert (len(first.answers), first.count) == (NEWEST, 8)


def test_a_step_that_was_told_twice_shows_its_later_answer():
    (card,) = shown(row(10, "old"), row(10, "new"))
    assert [piece.text for piece in card.answers[0].pieces] == ["new"]
    assert card.count == 1


def test_an_answer_of_no_words_and_a_question_without_references_are_shown_as_they_are():
    (card,) = shown(row(10, "a cat", references=()), row(20, "", references=()))
    assert [[piece.text for piece in answer.pieces] for answer in card.answers] == [[], ["a cat"]]
    assert card.references == []
