"""The launch form's fields and what they come to: read off the schema, typed as text, sent as differences, previewed in a terminal's words."""

import shlex
from dataclasses import replace

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import ImmutableMultiDict

from app.launch import fields, form, preview, starts
from app.launch.sources import Weights
from app.runs.schemas import RunRequest
from panollava import cli
from panollava.config import RunConfig, flat, parse
from panollava.presets import PRESETS, STARTING_POINTS
from panollava.stages import Stage


@pytest.fixture
def start(session):
    return lambda preset="full": starts.choose(session, preset)


def draft(start, *pairs, **given):
    return form.read(start, ImmutableMultiDict([*given.items(), *pairs]))


# Fields


def test_every_setting_of_the_schema_is_in_the_form():
    assert fields.fields().keys() == dict(flat(RunConfig().model_dump(mode="json"))).keys()


def test_a_field_tells_what_the_schema_knows():
    fov, lr, pool = (fields.fields()[name] for name in ("fov", "stages.vision.lr", "pool"))
    assert (fov.label, fov.unit, fov.bounds, fov.group) == ("Field of view", "degrees", "above 0, below 170", "Views")
    assert (lr.stage, lr.key, lr.bounds, lr.help) == (Stage.vision, "lr", "above 0", "Peak learning rate, reached after warm-up.")
    assert (pool.choices, pool.is_optional, pool.is_number) == (("1", "2", "4"), False, False)
    assert fields.fields()["resampler_width"].is_optional


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers())
def test_a_number_survives_being_shown_and_read_again(number):
    field = fields.fields()["fov"]
    assert field.value(fields.text(number), None) == number


@pytest.mark.parametrize(
    ("value", "text"), [(5e-6, "5e-6"), (1e20, "1e20"), (90.0, "90"), (0.5, "0.5"), (None, ""), (["vision", "finetune"], "vision,finetune")]
)
def test_values_are_shown_as_one_would_type_them(value, text):
    assert fields.text(value) == text


@pytest.mark.parametrize("text", ["nan", "inf", "1e999", "fast"])
def test_what_is_no_number_stays_text_and_is_refused(start, text):
    plan = preview.plan(draft(start(), **{"stages.vision.lr": text}).request, "http://here")
    ((field, _why),) = plan.errors
    assert field == "stages.vision.lr"


# What is typed


def test_an_empty_field_is_not_set_or_else_as_at_the_start(start):
    typed = draft(start("demo"), resampler_width="", name="", seed=" ")
    assert typed.request.config == {"resampler_width": None}
    assert typed.changed == ["resampler_width"]


def test_only_what_differs_is_asked_for(start):
    typed = draft(start("demo"), overlap="0.50", name="vlm", **{"stages.vision.lr": "1e-3", "stages.vision.epochs": "7"})
    assert typed.request.config == {"stages": {"vision": {"epochs": 7}}}
    assert typed.request.preset == "demo"


def test_ticked_boxes_are_the_stages_and_none_is_an_error(start):
    boxes = [("stage", ""), ("stage", "finetune"), ("stage", "vision")]
    assert draft(start(), *boxes).request.config == {"stage": ["finetune", "vision"]}
    plan = preview.plan(draft(start(), ("stage", "")).request, "http://here")
    assert plan.errors == [("stage", "choose at least one stage (got []).")]


def test_a_checkpoint_is_picked_or_typed_but_not_both(start):
    assert draft(start(), start_from="a.ckpt", init_from="").request.config == {"init_from": "a.ckpt"}
    assert draft(start(), start_from="", init_from="b.ckpt").request.config == {"init_from": "b.ckpt"}
    assert [field for field, _why in draft(start(), start_from="a.ckpt", init_from="b.ckpt").errors] == ["init_from"]


HUB = ("google/siglip-base-patch16-224", "Qwen/Qwen2.5-0.5B")
DEMO = tuple(STARTING_POINTS["demo"].values[model] for model in ("vision_model", "language_model"))


def models(typed):
    config = preview.plan(typed.request, "http://here").asked
    return config.vision_model, config.language_model


@pytest.mark.parametrize(
    ("preset", "given", "weights"),
    [
        ("full", {}, "hub"), ("demo", {}, "local"), ("continue", {}, "checkpoint"), ("demo", {"init_from": "a.ckpt"}, "checkpoint"),
        ("full", {"vision_model": "/some/where"}, "local"), ("demo", dict(zip(("vision_model", "language_model"), HUB, strict=True)), "hub"),
        ("continue", {"weights": "hub"}, "hub"), ("demo", {"weights": "checkpoint"}, "checkpoint"),
    ],
)  # fmt: skip
def test_what_it_starts_from_is_chosen_or_else_what_the_values_come_to(start, preset, given, weights):
    assert draft(start(preset), **given).weights == weights


def test_a_directory_of_the_config_stands_in_the_input_for_directories(start):
    texts = draft(start(), vision_model="/some/where").texts
    assert (texts["local.vision_model"], texts["local.language_model"]) == ("/some/where", "")


def test_the_inputs_that_are_not_chosen_are_kept_and_count_for_nothing(start):
    given = {"vision_model": "a/b", "local.vision_model": "/some/where", "start_from": "a.ckpt", "init_from": ""}
    asked = {weights: draft(start(), weights=weights, **given) for weights in Weights}
    assert asked["hub"].request.config == {"vision_model": "a/b"}
    assert asked["local"].request.config == {"vision_model": "/some/where"}
    assert asked["checkpoint"].request.config == {"vision_model": "a/b", "init_from": "a.ckpt"}
    assert {tuple(each.texts[name] for name in given) for each in asked.values()} == {tuple(given.values())}


def test_choosing_the_hub_leaves_the_checkpoint_that_the_form_began_with(start):
    begun = replace(start(), values=start().values | {"init_from": "a.ckpt"})
    typed = draft(begun, weights="hub")
    assert (typed.first_weights, typed.changed, typed.request.config) == ("checkpoint", ["init_from"], {})


def test_a_directory_under_hub_weights_is_told_at_its_field_with_what_to_do(start, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "eyes").mkdir(parents=True)
    for path in ("models/eyes", str(tmp_path)):
        ((field, why),) = draft(start(), weights="hub", vision_model=path).errors
        assert field == "vision_model"
        assert "Choose “Local directory” to start from it, or name a model of the hub, such as google/siglip" in why


def test_an_emptied_hub_id_is_the_directory_of_the_start_and_says_so(start):
    typed = draft(start("demo"), weights="hub", vision_model="", language_model="a/b")
    assert [field for field, _why in typed.errors] == ["vision_model"]


def test_a_local_directory_that_is_not_there_is_not_taken_for_a_hub_id(start):
    typed = draft(start(), **{"weights": "local", "local.language_model": "models/none"})
    assert typed.errors == [("language_model", "There is no directory models/none.")]


def test_a_model_without_a_directory_stays_the_one_of_the_hub(start):
    typed = draft(start(), **{"weights": "local", "local.vision_model": DEMO[0]})
    assert (typed.errors, models(typed)) == ([], (DEMO[0], HUB[1]))


def test_local_weights_need_one_directory(start):
    assert [field for field, _why in draft(start(), weights="local").errors] == ["vision_model"]
    assert draft(start("demo"), **{"weights": "local", "local.vision_model": "", "local.language_model": ""}).errors == []


def test_a_checkpoint_keeps_the_models_wherever_they_are(start):
    typed = draft(start("demo"), weights="checkpoint", start_from="a.ckpt")
    assert (typed.errors, models(typed)) == ([], DEMO)


def test_a_name_too_long_for_a_directory_is_none(start):
    assert draft(start(), vision_model="a" * 300).weights == "hub"


def test_to_start_from_a_checkpoint_needs_one(start):
    assert draft(start(), weights="checkpoint").errors == [("init_from", "Choose the checkpoint to continue from.")]


def test_to_continue_needs_a_checkpoint(start):
    assert draft(start("continue"), start_from="").errors == [("init_from", "Choose the checkpoint to continue from.")]
    assert draft(start("continue"), start_from="a.ckpt").errors == []


def test_the_same_form_is_the_same_request_and_a_changed_one_is_another(start):
    def key(**given):
        typed = draft(start(), request_key="k", **given)
        return typed.request_key(parse(typed.request.config))

    assert key(seed="1") == key(seed="1")
    assert len({key(seed="1"), key(seed="2"), key(seed="1", priority="3")}) == 3


def test_numbers_that_stand_in_one_field_are_numbers():
    field = fields.fields()["pitches"]
    assert (fields.text((-45.0, 0.5)), field.value("-45, 0.5,", None)) == ("-45,0.5", [-45, 0.5])
    assert field.value("-45,up", None) == [-45, "up"]


# The preview


def in_a_terminal(command):
    """The config that the previewed words make, as the command line reads them."""
    words = shlex.split(command.replace("\\\n", " "))
    assert words[:2] == ["panollava", "train"]
    train = typer.main.get_command(cli.app).commands["train"]
    flags = dict(train.make_context("train", words[2:]).params)
    named = {name: flags.pop(name) for name in ("config", "preset", "settings", "resume", "stage_dir")}
    return cli.resolve(named["config"], named["preset"], list(named["settings"] or []), flags)


EVERYTHING = {
    "name": "it.s", "stage": ["vision", "finetune"], "init_from": "my runs/best.ckpt", "vision_model": "some/where", "language_model": "./here",
    "data_dir": "it's here", "csv_train": "a b.csv", "csv_val": "$HOME/v.csv", "image_root": "i;ls", "max_bad_frac": 0.25, "num_workers": 3,
    "crop_strategy": "anyres_e2p", "fov": 100.5, "overlap": 0.6, "view_count": 12, "pitches": [-30, 0.5], "view_size": 64,
    "resampler_width": None, "pool": 4, "vicreg_inv": 1e-7, "vicreg_var": 0, "vicreg_cov": 2, "expander_width": 7,
    "seed": 12, "precision": "fp32", "wandb_project": "mine", "output_dir": "out put", "log_dir": "lo*gs",
    "stages": {stage: {
        "epochs": 9, "batch_size": 11, "lr": 3e-5, "vision_lr": None, "max_text_length": 99, "max_steps": 5, "weight_decay": 0.0,
        "warmup_ratio": 0.2, "min_lr_ratio": 1, "grad_clip": 0.3, "save_every_steps": 8,
    } for stage in Stage},
}  # fmt: skip
CUBE = {"stage": ["finetune"], "crop_strategy": "cubemap", "cube_faces": 4}


@pytest.mark.parametrize("preset", [None, *PRESETS])
@pytest.mark.parametrize("config", [{}, {"stages": {"resampler": {"lr": 1e-4}}}, EVERYTHING, CUBE], ids=["nothing", "one", "everything", "cube"])
def test_the_previewed_command_makes_the_same_config_in_a_terminal(preset, config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = preview.plan(RunRequest(preset=preset, config=config), "http://here")
    assert plan.errors == []
    assert in_a_terminal(plan.command) == plan.asked


def test_the_command_names_the_server_s_own_defaults(tmp_path, monkeypatch):
    (tmp_path / "panollava.toml").write_text("[vision]\nlr = 1e-4\n")
    monkeypatch.chdir(tmp_path)
    plan = preview.plan(RunRequest(preset="full", config={"seed": 3}), "http://here")
    assert f"--config {tmp_path}/panollava.toml" in plan.command
    assert in_a_terminal(plan.command) == plan.asked
    assert plan.asked.stages.vision.lr == 1e-4


def test_a_value_that_cannot_be_is_previewed_all_the_same(start):
    plan = preview.plan(draft(start(), **{"stages.vision.lr": "fast"}).request, "http://here")
    assert plan.asked is None
    assert "--set vision.lr=fast" in plan.command
    assert plan.body == {"preset": "full", "config": {"stages": {"vision": {"lr": "fast"}}}}


def test_all_errors_are_told_at_once(house):
    config = {
        "data_dir": str(house.root / "nothing"),
        "image_root": "/etc",
        "overlap": 0,
        "seed": -1,
        "pace": 1,
        "stages": {"vision": {"batch_size": 2}},
    }
    plan = preview.plan(RunRequest(config=config), "http://here", house.settings)
    assert {field for field, _why in plan.errors} == {"data_dir", "image_root", "overlap", "seed", "pace", "stages.vision.batch_size"}
    assert plan.resolved is None


def test_an_unknown_preset_is_an_error_at_its_field():
    plan = preview.plan(RunRequest(preset="nothing"), "http://here")
    assert plan.errors[0][0] == "preset"
    assert plan.errors[0][1].startswith("there is no preset 'nothing'")


# Starting points


def test_a_duplicate_gets_a_name_of_its_own(house, session):
    for name in ("pano", "pano-2", "other"):
        house.create(session, name=name)
    assert [starts.free_name(session, name) for name in ("pano", "pano-2", "other-7", "new")] == ["pano-3", "pano-3", "other-2", "new-2"]
    assert len(starts.free_name(session, "x" * 64)) <= 64


def test_a_duplicate_is_what_the_run_was_asked_for_with_its_paths(house, session):
    run = house.create(session, name="pano", overlap=0.6)
    values = starts.choose(session, run_id=run.id).values
    kept = {
        "name": "pano-2",
        "overlap": 0.6,
        "csv_train": [f"{house.root}/train.csv"],
        "stage": ["resampler"],
        "output_dir": "runs",
        "log_dir": "logs",
    }
    assert {name: values[name] for name in kept} == kept
