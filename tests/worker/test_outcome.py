"""How an attempt ended: the trainer's last word and its exit code, judged together."""

import pytest

from panollava.events import EventWriter, Note, StageEvent
from worker.outcome import judge, last_lines, last_word


def word(status: str, **more) -> StageEvent:
    return StageEvent(name="resampler", status=status, **more)


@pytest.mark.parametrize(
    ("said", "code", "asked", "killed", "status", "reason"),
    [
        ("succeeded", 0, False, False, "succeeded", "succeeded"),
        ("succeeded", 1, False, False, "failed", "exit_code"),
        ("succeeded", -11, False, False, "failed", "signal"),
        ("succeeded", 0, True, False, "succeeded", "succeeded"),
        ("stopped", 75, True, False, "stopped", "stopped"),
        ("stopped", 75, False, False, "stopped", "stopped"),
        ("stopped", 1, True, False, "failed", "exit_code"),
        ("started", 0, False, False, "failed", "no_outcome"),
        (None, 0, False, False, "failed", "no_outcome"),
        (None, 2, False, False, "failed", "bad_input"),
        (None, 127, False, False, "failed", "exit_code"),
        ("started", -9, False, False, "lost", "signal"),
        ("started", -9, True, False, "lost", "signal"),
        ("started", -7, False, False, "lost", "signal"),
        ("started", -6, False, False, "failed", "signal"),
        ("succeeded", -9, False, False, "lost", "signal"),
        ("started", -9, True, True, "stopped", "killed"),
        (None, -15, True, False, "stopped", "killed"),
        (None, -15, False, False, "lost", "signal"),
        ("failed", 1, True, False, "failed", "failed"),
    ],
)
def test_word_and_code_are_judged_together(said, code, asked, killed, status, reason):
    result = judge(word(said) if said else None, code, "the end of the log", asked=asked, killed=killed)
    assert (result.status, result.reason) == (status, reason)


def test_a_failure_that_the_trainer_named_keeps_its_name_and_message():
    result = judge(word("failed", reason="bad_input", detail="row 2"), 2, "log", asked=False, killed=False)
    assert (result.reason, result.detail) == ("bad_input", "row 2")


@pytest.mark.parametrize(
    ("said", "asked", "status"),
    [
        ("succeeded", False, "succeeded"),
        ("failed", False, "failed"),
        ("stopped", False, "lost"),
        ("stopped", True, "stopped"),
        ("started", False, "lost"),
        ("started", True, "stopped"),
        (None, False, "lost"),
    ],
)
def test_a_process_whose_exit_code_nobody_saw_is_judged_by_its_word_alone(said, asked, status):
    assert judge(word(said) if said else None, None, "", asked=asked).status == status


@pytest.mark.parametrize("code", [75, None])
@pytest.mark.parametrize("asked", [False, True])
def test_a_trainer_that_left_because_it_had_no_worker_is_to_go_on(code, asked):
    result = judge(word("stopped", step=7, reason="abandoned"), code, "", asked=asked)
    assert (result.status, result.reason) == ("lost", "abandoned")


def test_the_last_word_is_found_behind_a_torn_line_and_other_events(tmp_path):
    path = tmp_path / "events.jsonl"
    assert last_word(path) is None
    writer = EventWriter(path)
    for event in (word("started"), word("succeeded", best="a.ckpt"), Note(level="info", text='"type":"stage"')):
        writer.write(event)
    with path.open("ab") as file:
        file.write(b'{"type":"stage","name":"resampler","sta')
    assert last_word(path).best == "a.ckpt"


def test_the_end_of_a_log_shows_only_the_last_drawing_of_a_progress_bar(tmp_path):
    path = tmp_path / "output.log"
    path.write_bytes(b"first\n" + b"\r10%\r50%\r100%\n\n" + b"last \xff line")
    assert last_lines(path, 2) == "100%\nlast � line"


def test_a_signal_without_a_name_is_told_by_its_number():
    ended = judge(None, -40, "")
    assert (ended.reason, ended.detail) == ("signal", "The trainer was killed by signal 40, which we did not send.")
