"""How an attempt ended: the trainer's last word and its exit code, judged together."""

import pytest

from panollava.events import EventWriter, Note, StageEvent
from worker.disk import has_room
from worker.memory import kills
from worker.outcome import judge, last_lines, last_word


def word(status: str, **more) -> StageEvent:
    return StageEvent(name="resampler", status=status, **more)


@pytest.mark.parametrize(
    ("said", "code", "asked", "killed", "status", "reason"),
    [
        ("succeeded", 0, False, False, "succeeded", "succeeded"),
        ("succeeded", 1, False, False, "failed", "exit_code"),
        ("succeeded", -11, False, False, "failed", "crashed"),
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
        ("started", -6, False, False, "failed", "crashed"),
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


@pytest.mark.parametrize(
    ("ran_out", "reason", "says"),
    [
        (True, "out_of_host_memory", "The kernel killed the trainer because memory ran out"),
        (None, "signal", "killed by SIGKILL, which we did not send. The kernel may have done it"),
        (False, "signal", "killed by SIGKILL, which we did not send. It was not the kernel"),
    ],
)
def test_of_a_kill_that_nobody_here_sent_the_kernels_count_says_whether_memory_ran_out(ran_out, reason, says):
    ended = judge(word("started"), -9, "the end of the log", ran_out_of_memory=ran_out)
    assert (ended.status, ended.reason) == ("lost", reason), "tried again: the run has done nothing wrong"
    assert says in ended.detail and ended.detail.endswith("the end of the log")


@pytest.mark.parametrize(
    ("said", "ran_out", "status", "reason"),
    [
        ("Rank 1 of 2 (process 7) was killed by SIGKILL.", True, "lost", "out_of_host_memory"),
        ("DataLoader worker (pid 7) is killed by signal: Killed. ", True, "lost", "out_of_host_memory"),
        ("Rank 1 of 2 (process 7) was killed by SIGKILL.", None, "failed", "RankLost"),
        ("Rank 1 of 2 (process 7) ended with exit status 1.", True, "failed", "RankLost"),
    ],
)
def test_a_process_of_the_trainers_that_the_kernel_killed_is_told_as_such(said, ran_out, status, reason):
    ended = judge(word("failed", reason="RankLost", detail=said), 1, "", ran_out_of_memory=ran_out)
    assert (ended.status, ended.reason) == (status, reason)
    assert said in ended.detail


@pytest.mark.parametrize(
    ("log", "reason", "first"),
    [
        ("Traceback (most recent call last):\n  File x\nOSError: [Errno 28] No space left on device", "disk_full", "OSError: [Errno 28]"),
        ("Traceback (most recent call last):\n  File x\nMemoryError", "out_of_host_memory", "MemoryError"),
        ("panollava: t.csv: there is no such file. Name your data with --data-dir", "missing_file", "panollava: t.csv"),
        (
            "wandb: No space left on device\nTraceback (most recent call last):\n  File x\nKeyError: 'a'",
            "exit_code",
            "KeyError: 'a'\nThe trainer ended with",
        ),
        ("wandb: No space left on device\nlast line", "exit_code", "The trainer ended with"),
    ],
)
def test_a_trainer_that_could_not_say_what_happened_is_judged_by_the_error_that_ended_its_log(log, reason, first):
    ended = judge(word("started"), 1, log)
    assert (ended.status, ended.reason) == ("failed", reason)
    assert ended.detail.startswith(first)


@pytest.mark.parametrize("code", [1, -7])
def test_where_there_is_no_room_even_for_its_last_words_the_disk_is_full(code):
    ended = judge(word("started"), code, "", has_room=False)
    assert (ended.status, ended.reason) == ("failed", "disk_full"), "not tried again: it would find it full"
    assert judge(word("started"), -9, "", has_room=False).status == "lost"
    assert judge(word("failed", reason="bad_input"), 2, "", has_room=False).reason == "bad_input", "what it said itself counts"


def test_the_kernels_count_is_read_from_the_cgroup_or_nobody_says(tmp_path):
    mine, cgroups = tmp_path / "cgroup", tmp_path / "fs"
    assert kills(mine, cgroups) is None
    mine.write_text("4:memory:/old\n0::/workers/one\n")
    assert kills(mine, cgroups) is None
    (cgroups / "workers/one").mkdir(parents=True)
    (cgroups / "workers/one/memory.events").write_text("low 0\nhigh 3\nmax 9\noom 2\noom_kill 2\noom_group_kill 0\n")
    assert kills(mine, cgroups) == 2


def test_a_directory_that_is_gone_does_not_make_the_disk_full(tmp_path):
    assert has_room(tmp_path)
    assert has_room(tmp_path / "gone")
    assert list(tmp_path.iterdir()) == []


def test_a_signal_without_a_name_is_told_by_its_number():
    ended = judge(None, -40, "")
    assert (ended.reason, ended.detail) == ("signal", "The trainer was killed by signal 40, which we did not send.")
