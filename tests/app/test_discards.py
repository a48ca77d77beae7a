"""What is to leave the object store stands in a table until it has left, on every database; the store is played."""

import pytest
from sqlmodel import select

from app import artifacts, discards
from app.models import Discard


@pytest.fixture
def store(monkeypatch):
    """Names that it removed, in order; it refuses those that say so."""
    removed = []

    def remove(name: str) -> None:
        if "refused" in name:
            raise artifacts.Away(f"{name}: AccessDenied")
        removed.append(name)

    monkeypatch.setattr(artifacts, "delete_checkpoint", remove)
    monkeypatch.setattr(artifacts, "delete_below", lambda name: remove(f"all below {name}"))
    return removed


def add(house, *names: str) -> None:
    with house.writing.begin() as session:
        for name in names:
            discards.add(session, name, 1, 1 << 40, is_directory=name.startswith("run"))


def test_a_checkpoint_goes_with_its_note_and_a_run_with_all_below_it_and_nothing_of_them_is_left_to_do(house, session, store):
    add(house, "best.ckpt", "run-1")
    assert discards.waiting(session, 1) == discards.Waiting(2, 2 << 40, None) and discards.waiting(session, 2).count == 0
    session.rollback()
    discards.sweep(house.reading, house.writing)
    assert store == ["best.ckpt", "all below run-1"] and discards.waiting(session).count == 0


def test_what_was_refused_is_asked_for_after_what_was_never_tried_and_each_in_turn(house, session, store):
    add(house, "refused-1", "refused-2", "a.ckpt")
    for _ in range(3):
        discards.sweep(house.reading, house.writing)
    assert store == ["a.ckpt"]
    add(house, "b.ckpt")
    discards.sweep(house.reading, house.writing)
    assert store == ["a.ckpt", "b.ckpt"]
    told = {each.name: each.problem for each in session.exec(select(Discard))}
    assert told == {name: f"{name}: AccessDenied" for name in ("refused-1", "refused-2")}


def test_what_a_transaction_gave_up_that_was_rolled_back_stays_in_the_store(house, store):
    with house.writing() as session:
        discards.add(session, "best.ckpt", 1)
        session.rollback()
    discards.sweep(house.reading, house.writing)
    assert store == []


def test_a_number_is_not_given_twice_so_that_a_slow_sweep_forgets_nothing_that_was_added_meanwhile(house, session):
    add(house, "a.ckpt")
    before = session.exec(select(Discard.id)).one()
    session.rollback()
    with house.writing.begin() as other:
        discards.forget(other)
    add(house, "b.ckpt")
    assert session.exec(select(Discard.id)).one() > before
