"""What is kept of slow results."""

import threading

import pytest

from app.recent import Recent


def test_the_results_that_were_last_asked_for_are_kept_and_no_more():
    made = []
    recent = Recent(2)
    for key in ("a", "b", "a", "c", "a", "b"):
        recent.get(key, lambda key=key: made.append(key) or key)
    assert made == ["a", "b", "c", "b"]
    assert recent.find("a") == "a" and recent.find("c") is None


def test_nothing_is_kept_of_what_could_not_be_made():
    recent = Recent(2)
    with pytest.raises(ZeroDivisionError):
        recent.get("a", lambda: 1 // 0)
    assert recent.get("a", lambda: "made") == "made"


def test_who_asks_for_the_same_meanwhile_waits_for_it():
    recent, begun, go_on, made = Recent(2), threading.Event(), threading.Event(), []

    def make():
        made.append(threading.current_thread().name)
        begun.set()
        go_on.wait(5)
        return "made"

    threads = [threading.Thread(target=recent.get, args=("a", make)) for _ in range(2)]
    threads[0].start()
    begun.wait(5)
    threads[1].start()
    go_on.set()
    for thread in threads:
        thread.join(5)
    assert len(made) == 1
