"""A person launches a run from the page, without scripts; and what the page's script asks while one types."""

from html.parser import HTMLParser
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app.access import sessions
from app.models import Job, JobStatus, Run
from panollava import architecture, rundir
from panollava.config import parse
from panollava.events import CheckpointSaved
from panollava.presets import STARTING_POINTS
from panollava.refusals import MODELS
from panollava.rundir import CheckpointNote
from panollava.stages import Stage


class Form(HTMLParser):
    """What a browser without scripts would send, and the attributes of each input."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sent: dict[str, list[str]] = {}
        self.inputs: dict[str, dict[str, str]] = {}
        self.options: dict[str, dict[str, str]] = {}
        self.ids: set[str] = set()
        self.labelled: set[str] = set()
        self.links: list[str] = []
        self._select = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attributes}
        self.ids |= {found["id"]} if "id" in found else set()
        self.labelled |= {found["for"]} if "for" in found else set()
        self.links += [found["href"]] if tag == "a" else []
        if tag == "option":
            self.options[found["value"]] = found
            if "selected" in found or not self.sent[self._select]:
                self.sent[self._select] = [found["value"]]
        elif tag in ("input", "select") and found.get("form") != "":
            self._input(tag, found)

    def _input(self, tag: str, found: dict[str, str]) -> None:
        name = found.get("name", "")
        self.inputs[name] = found
        self._select = name
        values = self.sent.setdefault(name, [])
        if tag == "input" and (found.get("type") not in ("checkbox", "radio") or "checked" in found):
            values.append(found.get("value", ""))


@pytest.fixture
def page(house):
    """Open the form; the answer is read as a form."""

    def open_page(query: str = "preset=demo") -> Form:
        answer = house.browser.get(f"/runs/new?{query}")
        assert answer.status_code == 200, answer.text
        return Form(answer.text)

    return open_page


@pytest.fixture
def typed(house, page):
    """The form of the demo on the test's table, with more typed over it."""

    def fill(query: str = "preset=demo", **more):
        return page(query).sent | {"csv_train": house.table, "csv_val": house.table} | more

    return fill


def the_run(house):
    with house.reading() as session:
        return session.get_one(Run, house.count(Run))


def trained(house, **config) -> tuple[int, Path]:
    """A run of stage vision that succeeded: its number, and its best checkpoint."""
    values = {"csv_train": house.table, "csv_val": house.table, "stage": "vision", "name": "eyes"} | config
    run = house.launch.post("/runs", {"preset": "demo", "config": values}).json()
    work = house.claim()
    path = work.directory / "best.ckpt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"weights")
    facts = {"kind": "best", "step": 3, "epoch": 1.0, "metrics": {"val_loss": 0.5}, "sha256": rundir.sha256(path), "size": 7}
    looks = architecture.of(parse(run["config"]))
    note = CheckpointNote(stage="vision", created_at=rundir.now(), architecture=looks, config=run["config"], tensors={}, **facts)
    rundir.note_path(path).write_text(note.model_dump_json())
    work.say(CheckpointSaved(path="best.ckpt", **facts))
    work.end(JobStatus.succeeded, best="best.ckpt")
    return run["id"], path


# Launching


def test_a_run_is_launched_without_scripts(house, typed):
    answer = house.browser.post("/runs/new", data=typed(name="mine", **{"stages.vision.lr": "2e-3"}), follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/runs/1")
    run = the_run(house)
    assert (run.name, run.created_by, run.config["stage"]) == ("mine", "browser", ["vision", "resampler", "finetune"])
    assert run.config["stages"]["vision"]["lr"] == 2e-3
    assert run.config["vision_model"] == STARTING_POINTS["demo"].values["vision_model"]


def test_the_form_as_it_is_shown_asks_for_the_preset_and_nothing_else(house, typed):
    house.browser.post("/runs/new", data=typed("preset=finetune"))
    values = {"csv_train": house.table, "csv_val": house.table}
    same = house.launch.post("/runs", {"preset": "finetune", "config": values}).json()["config"]
    with house.reading() as session:
        assert session.get_one(Run, 1).config == same | {"output_dir": session.get_one(Run, 1).directory}


def test_pressing_twice_and_coming_back_make_one_run(house, typed):
    form = typed()
    first, second = (house.browser.post("/runs/new", data=form, follow_redirects=False) for _ in range(2))
    assert first.headers["location"] == second.headers["location"] == "/runs/1"
    assert (house.count(Run), house.count(Job)) == (1, 1)


def test_coming_back_and_changing_something_makes_another_run(house, typed):
    form = typed()
    for seed in ("1", "2"):
        house.browser.post("/runs/new", data=form | {"seed": seed}, follow_redirects=False)
    assert house.count(Run) == 2


def test_the_browser_may_keep_the_page_for_the_way_back_but_asks_again_otherwise(house):
    first, second = (house.browser.get("/runs/new") for _ in range(2))
    assert first.headers["cache-control"] == "private, no-cache"
    assert Form(first.text).sent["request_key"] != Form(second.text).sent["request_key"]


def test_check_only_queues_nothing_and_says_so(house, typed):
    answer = house.browser.post("/runs/new", data=typed(check="1"))
    assert answer.status_code == 200
    assert "Nothing speaks against it." in answer.text
    assert house.count(Run) == 0


def test_data_below_the_roots_is_offered_and_not_filled_in(house):
    pair = house.settings.home / "cubes"
    pair.mkdir()
    table = Path(house.table).read_text()
    for path, text in ((pair / "train.csv", table), (pair / "valid.csv", table), (pair / "loss.csv", "step,loss\n")):
        path.write_text(text)
    text = house.browser.get("/runs/new?preset=demo").text
    csvs = [house.table, str(pair / "train.csv"), str(pair / "valid.csv")]
    for name, paths in (("data_dir", [str(pair)]), ("csv_train", csvs), ("csv_val", csvs)):
        assert f'<datalist id="d-{name}">' + "".join(f'<option value="{path}"></option>' for path in paths) + "</datalist>" in text
        assert (Form(text).inputs[name]["list"], Form(text).sent[name]) == (f"d-{name}", [""])


def test_model_directories_below_the_roots_are_offered_by_what_they_can_be(house):
    configs = {
        "eyes": '{"model_type": "siglip", "vision_config": {}}', "tongue": '{"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}',
        "ears": '{"model_type": "whisper", "architectures": ["WhisperForConditionalGeneration"]}', "run": '{"name": "vlm"}', "broken": "{",
    }  # fmt: skip
    for name, text in configs.items():
        directory = house.settings.home / "models" / name
        directory.mkdir(parents=True)
        (directory / "config.json").write_text(text)
    form = house.browser.get("/runs/new").text
    for name, found in (("local.vision_model", "eyes"), ("local.language_model", "tongue")):
        assert f'<datalist id="d-{name}"><option value="{house.settings.home}/models/{found}"></option></datalist>' in form
        assert (Form(form).inputs[name]["list"], Form(form).sent[name]) == (f"d-{name}", [""])


# What is wrong


def test_a_directory_without_a_model_is_told_at_the_input_it_was_typed_into(house, typed):
    form = typed("preset=full", weights="local") | {"local.vision_model": str(house.settings.home)}
    answer = house.browser.post("/runs/new", data=form)
    again = Form(answer.text)
    assert answer.status_code == 422
    assert "is no model directory: it has no config.json" in answer.text
    assert again.inputs["local.vision_model"]["aria-invalid"] == "true"
    assert "#f-local.vision_model" in again.links and "#f-vision_model" not in again.links
    assert (again.sent["weights"], again.sent["local.vision_model"]) == (["local"], [str(house.settings.home)])


def test_a_directory_where_a_hub_id_should_be_queues_nothing(house, typed):
    answer = house.browser.post("/runs/new", data=typed(weights="hub"))
    assert answer.status_code == 422
    assert "#f-vision_model" in Form(answer.text).links
    assert answer.text.count("This names a directory of this machine.") == 6  # in the summary and at both inputs of both models
    assert house.count(Run) == 0


def test_every_error_is_told_at_its_field_and_what_was_typed_is_kept(house, typed):
    form = typed(overlap="0", csv_val=str(house.settings.home / "nothing.csv"), **{"stages.finetune.lr": "fast"})
    answer = house.browser.post("/runs/new", data=form)
    assert answer.status_code == 422
    again = Form(answer.text)
    for name in ("overlap", "csv_val", "stages.finetune.lr"):
        assert again.inputs[name]["value"] == form[name]
        assert again.inputs[name]["aria-invalid"] == "true"
        assert f"e-{name}" in again.inputs[name]["aria-describedby"].split()
        assert f"#f-{name}" in again.links
    assert "aria-invalid" not in again.inputs["seed"]
    assert again.sent["request_key"] == form["request_key"]
    assert "nothing.csv: No such file" in answer.text
    assert house.count(Run) == 0


def test_what_an_element_points_to_is_there(house, typed):
    again = Form(house.browser.post("/runs/new", data=typed(overlap="0", name="a b", priority="soon", stage="")).text)
    assert {link[1:] for link in again.links if link.startswith("#")} <= again.ids
    described = [name for each in again.inputs.values() for name in each.get("aria-describedby", "").split()]
    assert described
    assert set(described) <= again.ids
    shown = {name: each for name, each in again.inputs.items() if each.get("type") not in ("hidden", "checkbox")}
    assert [name for name, each in shown.items() if each["id"] not in again.labelled and name != "priority"] == []


def test_the_summary_takes_the_focus(house, typed):
    text = house.browser.post("/runs/new", data=typed(name="a b")).text
    assert 'id="summary" role="alert" tabindex="-1" autofocus' in text


@pytest.mark.parametrize("value", ["soon", "2000"])
def test_a_priority_that_cannot_be_is_told_at_its_field(house, typed, value):
    answer = house.browser.post("/runs/new", data=typed(priority=value))
    assert answer.status_code == 422
    assert Form(answer.text).inputs["priority"]["aria-invalid"] == "true"


def test_what_somebody_typed_is_shown_as_text(house, typed):
    text = house.browser.post("/runs/new", data=typed(name='"><script>alert(1)</script>')).text
    assert "<script>alert" not in text


# Starting points


@pytest.mark.parametrize("preset", STARTING_POINTS)
def test_every_preset_has_a_form(page, preset):
    form = page(f"preset={preset}")
    assert form.sent["preset"] == [preset]
    assert form.sent["start_from"] == [""]


def test_without_a_preset_it_is_the_full_chain(page):
    form = page("")
    assert (form.sent["preset"], form.sent["stage"]) == (["full"], ["", "vision", "resampler", "finetune"])


def test_an_unknown_preset_is_a_problem_page(house):
    answer = house.browser.get("/runs/new?preset=nothing")
    assert answer.status_code == 422
    assert "there is no preset &#39;nothing&#39;" in answer.text


def test_an_address_fills_in_what_it_names(page):
    form = page("preset=demo&overlap=0.6&stage=vision&stage=finetune&stages.vision.lr=1e-4")
    assert (form.sent["overlap"], form.sent["stages.vision.lr"], form.sent["stage"]) == (["0.6"], ["1e-4"], ["", "vision", "finetune"])


def test_a_duplicate_asks_for_the_same_under_another_name(house, page):
    number, _best = trained(house, overlap=0.6)
    house.browser.post("/runs/new", data=page(f"from={number}").sent)
    first, second = house.read.get("/runs/1").json()["config"], house.read.get("/runs/2").json()["config"]
    assert second == first | {"name": "eyes-2", "output_dir": second["output_dir"]}


def test_a_run_goes_on_from_a_checkpoint_with_the_next_stage(house, page):
    _number, best = trained(house)
    form = page("checkpoint=1")
    assert (form.sent["start_from"], form.sent["stage"]) == ([str(best)], ["", "resampler"])
    assert house.browser.post("/runs/new", data=form.sent).url.path == "/runs/2"
    stages = house.read.get("/runs/2").json()["stages"]
    assert [(stage["stage"], stage["init_checkpoint"]) for stage in stages] == [("resampler", str(best))]


def test_a_form_begins_with_the_choice_that_its_values_come_to(house, page):
    number, _best = trained(house)
    begun = {query: page(query).sent["weights"] for query in ("preset=full", f"from={number}", "checkpoint=1", "preset=continue")}
    assert begun == {"preset=full": ["hub"], f"from={number}": ["local"], "checkpoint=1": ["checkpoint"], "preset=continue": ["checkpoint"]}


def test_the_command_that_was_previewed_is_what_is_submitted_from_a_local_directory(house, typed):
    form = typed("preset=full", weights="local") | {f"local.{model}": STARTING_POINTS["demo"].values[model] for model in MODELS}
    plan = house.browser.post("/runs/new/plan", data=form).json()
    assert plan["errors"] == []
    assert plan["changed"] == ["vision_model", "language_model", "csv_train", "csv_val"]
    house.browser.post("/runs/new", data=form)
    for model in MODELS:
        assert the_run(house).config[model] == form[f"local.{model}"]
        assert f"--{model.replace('_', '-')} {form[f'local.{model}']}" in plan["command"]


def test_a_checkpoint_that_is_not_there_is_not_found(house):
    assert house.browser.get("/runs/new?checkpoint=7").status_code == 404
    assert house.browser.get("/runs/new?from=7").status_code == 404


def test_a_checkpoint_that_fits_is_offered_and_one_that_does_not_is_disabled(house, page):
    _number, best = trained(house)
    assert "disabled" not in page().options[str(best)]
    best.unlink()
    assert "disabled" in page().options[str(best)]


def test_a_checkpoint_of_a_later_stage_or_of_other_models_is_refused_with_the_reason(house, typed):
    path = house.checkpoint("later.ckpt")
    told = house.browser.post("/runs/new/plan", data=typed(weights="checkpoint", init_from=str(path))).json()["errors"]
    assert [error["field"] for error in told] == ["init_from"]
    assert "made with another architecture" in told[0]["message"]
    _number, best = trained(house)
    note = rundir.read_note(best).model_copy(update={"stage": Stage.finetune})
    rundir.note_path(best).write_text(note.model_dump_json())
    told = house.browser.post("/runs/new/plan", data=typed(weights="checkpoint", init_from=str(best))).json()["errors"]
    assert "is of stage finetune, which cannot start the earlier stage vision" in told[0]["message"]


def test_to_continue_without_a_checkpoint_is_refused_at_the_list(house, typed):
    answer = house.browser.post("/runs/new", data=typed("preset=continue"))
    assert answer.status_code == 422
    assert Form(answer.text).inputs["start_from"]["aria-invalid"] == "true"


# While one types


def test_the_script_is_told_errors_changes_and_the_same_in_other_words(house, typed):
    plan = house.browser.post("/runs/new/plan", data=typed(overlap="0.6", seed="-1")).json()
    assert [(error["field"], error["anchor"], error["label"]) for error in plan["errors"]] == [("seed", "f-seed", "Seed")]
    assert plan["changed"] == ["csv_train", "csv_val", "overlap", "seed"]
    assert plan["differs"] == "4 values differ from “Demo”"
    assert "--preset demo" in plan["command"] and "--overlap 0.6" in plan["command"]
    assert '"overlap": 0.6' in plan["json"]
    assert plan["curl"].startswith("curl --fail-with-body http://testserver/api/v1/runs")
    assert house.count(Run) == 0


def test_the_script_is_told_which_checkpoints_fit_what_is_typed(house, typed):
    _number, best = trained(house)
    offers = house.browser.post("/runs/new/plan", data=typed()).json()["offers"]
    assert offers == {str(best): ""}
    wider = house.browser.post("/runs/new/plan", data=typed(**{"local.vision_model": str(other_model(house))})).json()["offers"]
    assert "vision_width" in wider[str(best)]


def other_model(house) -> Path:
    directory = house.settings.home / "wide"
    directory.mkdir()
    (directory / "config.json").write_text(
        '{"model_type": "siglip_vision_model", "hidden_size": 16, "num_hidden_layers": 1, "image_size": 32, "patch_size": 8}'
    )
    return directory


@pytest.mark.parametrize(
    ("strategy", "more", "says"),
    [
        ("e2p", {"overlap": "0.8"}, "20 views of every panorama, 80 image tokens"),
        ("e2p", {"view_count": "12"}, "12 views of every panorama, 48 image tokens"),
        ("anyres_e2p", {"pitches": "-30,30"}, "17 views of every panorama, 68 image tokens"),
        ("cubemap", {"cube_faces": "4"}, "4 views of every panorama, 16 image tokens"),
        ("sliding_window", {"fov": "120"}, "6 views of every panorama, 24 image tokens"),
        ("resize", {}, "1 view of every panorama, 4 image tokens"),
    ],
)
def test_views_are_counted_while_one_types(house, typed, strategy, more, says):
    assert house.browser.post("/runs/new/plan", data=typed(crop_strategy=strategy, **more)).json()["views"] == says


def test_image_tokens_are_counted_while_one_types_and_left_out_where_they_are_not_known(house, typed):
    def views(**fields):
        return house.browser.post("/runs/new/plan", data=typed(**fields)).json()["views"]

    assert views(resampler="perceiver", resampler_queries="48", resampler_width="") == "8 views of every panorama, 48 image tokens"
    assert views(pool="1") == "8 views of every panorama, 128 image tokens"
    assert views(weights="hub", vision_model="nobody/nothing") == "8 views of every panorama"


def test_the_chain_says_what_each_stage_minimises_as_it_is_set(house, typed):
    first = house.browser.get("/runs/new").text
    assert "vicreg loss; learns expander, vision" in first
    assert first.count("autoregressive loss; learns") == 2
    told = house.browser.post("/runs/new/plan", data=typed(overlap_loss="densecl", overlap_loss_weight="0.1")).json()["learning"]
    assert told["vision"].startswith("densecl loss;")
    assert told["resampler"].startswith("autoregressive + 0.1 densecl loss;")
    assert told["finetune"].startswith("autoregressive loss;")
    unclear = house.browser.post("/runs/new/plan", data=typed(overlap_loss="densecl", seed="-1")).json()["learning"]
    assert unclear["vision"].startswith("overlap loss;")


def test_who_may_only_read_sees_the_form_and_may_not_send_it(house):
    reader = TestClient(house.app, raise_server_exceptions=False, headers={"Accept": "text/html", "Origin": "http://testserver"})
    with house.writing.begin() as session:
        reader.cookies.set(house.cookie, sessions.open_session(session, house.read.token))
    assert reader.get("/runs/new").status_code == 200
    assert reader.post("/runs/new", data={"preset": "demo"}).status_code == 403
    assert reader.post("/runs/new/plan", data={"preset": "demo"}).status_code == 403


# The same over REST


def test_a_request_is_thought_through_without_being_queued(house):
    body = {"preset": "demo", "config": {"csv_train": house.table, "csv_val": house.table, "overlap": 0.6}, "priority": 3}
    plan = house.launch.post("/plan", body).json()
    assert plan["errors"] == []
    assert plan["config"]["overlap"] == 0.6
    assert plan["config"]["csv_train"] == [house.table]
    assert plan["changed"] == ["csv_train", "csv_val", "overlap"]
    assert plan["json"] == body
    assert (house.count(Run), list(house.settings.artifacts.glob("*"))) == (0, [])
    assert house.launch.post("/runs", plan["json"]).json()["config"]["overlap"] == 0.6


def test_a_plan_names_every_field_that_is_at_fault(house):
    answer = house.launch.post("/plan", {"config": {"overlap": 1, "image_root": "/etc", "csv_train": house.table, "csv_val": house.table, "pace": 1}})
    assert answer.status_code == 200
    assert answer.json()["config"] is None
    assert {error["field"] for error in answer.json()["errors"]} == {"overlap", "image_root", "pace"}


def test_a_plan_is_for_those_who_may_launch(house):
    assert house.read.post("/plan", {}).status_code == 403


def test_what_each_stage_will_take_stands_on_the_page_and_follows_what_is_typed(house, typed):
    demo = house.browser.get("/runs/new?preset=demo").text
    assert "What this will take" in demo
    assert "335,744 of 381,440" in demo
    told = house.browser.post("/runs/new/plan", data=typed(stage="finetune")).json()["takes"]
    assert {name.partition(".")[0] for name in told} == {"finetune"}
    assert told["finetune.learns"] == "45,696 of 834,048"
    assert (told["finetune.steps"], told["finetune.time"]) == ("1", "not known yet")
    assert house.browser.post("/runs/new/plan", data=typed(seed="-1")).json()["takes"] == {}


def test_check_only_shows_the_figures_without_scripts(house, typed):
    answer = house.browser.post("/runs/new", data=typed(check="1"))
    assert 'data-figure="resampler.learns">290,304 of 834,048<' in answer.text
