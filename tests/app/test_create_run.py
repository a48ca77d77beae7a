"""A person asks for a run: everything that can be seen to fail is refused before anything is written."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlmodel import select

from app.errors import Conflict, Forbidden, Invalid
from app.models import Event, Job, Run, StageRun
from app.runs import service as runs
from panollava.config import RunConfig
from panollava.errors import BadInput
from tests.tables import IMAGES, TABLE


def refused(house, session, error, match, **config):
    with pytest.raises(error, match=match):
        house.create(session, **config)
    session.commit()
    assert [session.exec(select(table)).all() for table in (Run, StageRun, Job, Event)] == [[], [], [], []]
    assert not list(house.settings.artifacts.glob("*"))


def models(root, **vision):
    """Local model directories, as far as anybody looks into them before a training."""
    for name, config in (
        ("vision", {"model_type": "siglip_vision_model", "hidden_size": 8, "num_hidden_layers": 1, "image_size": 32, "patch_size": 8} | vision),
        ("language", {"model_type": "qwen2", "hidden_size": 8, "num_hidden_layers": 1}),
    ):
        (root / name).mkdir()
        (root / name / "config.json").write_text(json.dumps(config))
    return {"vision_model": str(root / "vision"), "language_model": str(root / "language")}


def test_a_run_its_stages_and_its_first_job_are_made_together(house, session):
    run = house.create(session, stage="all", name="pano")
    assert [(each.stage, each.status) for each in runs.state(session, run).stages] == [
        ("vision", "queued"), ("resampler", "waiting"), ("finetune", "waiting"),
    ]  # fmt: skip
    (job,) = session.exec(select(Job)).all()
    assert (job.kind, job.run_id, job.devices, job.attempt) == ("train", run.id, 1, 0)
    assert job.directory == f"{house.settings.artifacts}/run-{run.id}/pano_vision"
    assert run.created_by == "ann"


def test_the_config_is_kept_with_absolute_paths(house, session, monkeypatch):
    monkeypatch.chdir(house.root)
    run = runs.create(session, RunConfig(data_dir=".", stage="finetune"), house.settings, "ann")
    config = RunConfig.model_validate(run.config)
    assert (config.csv_train, config.csv_val) == ((f"{house.root}/train.csv",), (f"{house.root}/valid.csv",))
    assert (config.output_dir, config.log_dir, config.cache_dir) == (run.directory, "", f"{house.settings.artifacts}/cache")
    assert config.vision_model == "google/siglip-base-patch16-224"


def test_every_table_of_a_split_is_looked_at(house, session):
    names = [f"{house.root}/{name}.csv" for name in ("train", "test")]
    whole = (house.root / "test.csv").read_text()
    (house.root / "test.csv").write_text("url,query\na.jpg,What?\n")
    refused(house, session, BadInput, r"test\.csv:1:annotation: the column is missing", csv_train=names)
    refused(house, session, Forbidden, "csv_val: /etc/x.csv lies outside", csv_val=[names[0], "/etc/x.csv"])
    (house.root / "test.csv").write_text(whole)
    assert house.create(session, csv_train=",".join(names)).config["csv_train"] == names


def test_images_are_downloaded_only_where_the_server_allows_it(house, session):
    (house.root / "train.csv").write_text(TABLE.replace("\n", "\nhttps://example.org/", len(IMAGES)))
    refused(house, session, BadInput, r"train\.csv:2:url: https://example.org/a.jpg: remote images are read only with allow_remote")
    refused(house, session, Forbidden, "allow_remote: this server downloads no images; PANOLLAVA_ALLOW_REMOTE=1", allow_remote=True)
    open_house = house.settings.model_copy(update={"allow_remote": True})
    assert runs.create(session, house.config(stage="vision", allow_remote=True), open_house, actor="ann").config["allow_remote"]


def test_the_cache_is_the_servers_whatever_a_run_asks_for(house, session):
    config = house.create(session, cache_dir="/etc", cache_gb=1e9).config
    assert (config["cache_dir"], config["cache_gb"]) == (f"{house.settings.artifacts}/cache", house.settings.cache_gb)


def test_a_missing_table_is_named(house, session):
    refused(house, session, BadInput, r"nothing/train\.csv: No such file", data_dir=str(house.root / "nothing"))


def test_a_table_without_annotation_is_named_with_the_columns_it_has(house, session):
    (house.root / "valid.csv").write_text("url,query\na.jpg,What?\n")
    refused(house, session, BadInput, r"valid\.csv:1:annotation: the column is missing .* found: url, query")


def test_stage_vision_needs_no_annotation(house, session):
    for split in ("train", "valid"):
        (house.root / f"{split}.csv").write_text(TABLE.replace(",annotation", "").replace(",This.", ""))
    assert house.create(session, stage="vision")


def test_bad_rows_are_left_to_the_trainer_when_some_are_allowed(house, session):
    (house.root / "train.csv").write_text("url,query,annotation\na.jpg,What?,This.\nb.jpg,,That.\n")
    refused(house, session, BadInput, r"train\.csv:3:query: the cell is empty")
    assert house.create(session, max_bad_frac=0.5)


def test_images_that_are_missing_are_refused_with_their_rows(house, session):
    (house.root / "b.jpg").unlink()
    refused(house, session, BadInput, r"data_dir: .*train\.csv:3:url: b\.jpg: no such file below")
    assert house.create(session, max_bad_frac=0.5)


def test_too_few_panoramas_to_compare_are_refused(house, session):
    (house.root / "b.jpg").unlink()
    refused(house, session, BadInput, "it has 3 different panoramas, and stage vision compares at least 4", stage="vision", max_bad_frac=0.5)


def test_all_that_is_wrong_is_told_at_once_with_its_fields(house, session):
    (house.root / "valid.csv").write_text("url,query\na.jpg,What?\n")
    with pytest.raises(BadInput) as refusal:
        house.create(session, vision_model=str(house.root), init_from=str(house.root / "none.ckpt"))
    assert [field for field, _ in refusal.value.fields] == ["vision_model", "data_dir", "init_from"]


def test_a_path_outside_of_the_roots_is_refused_with_its_field(house, session, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    refused(house, session, Forbidden, f"csv_train: {elsewhere}/x.csv lies outside .*{house.root}", csv_train=f"{elsewhere}/x.csv")
    refused(house, session, Forbidden, "csv_train", csv_train=f"{house.root}/../../../etc/passwd")


def test_images_outside_of_the_roots_are_refused_with_their_first_rows_and_how_many_more(house, session):
    (house.root.parent / "private.jpg").write_bytes(b"")
    rows = ["a.jpg,What?,This.", *["../private.jpg,What?,This."] * 22]
    (house.root / "train.csv").write_text("\n".join(["url,query,annotation", *rows]))
    head = rf"22 rows of {house.root}/train\.csv show an image that lies outside .*{house.root}.*:"
    refused(house, session, Forbidden, rf"^{head}\n{house.root}/train\.csv:3:url: \.\./private\.jpg\n(.*\n){{19}}\.\.\. and 2 more$")


def test_a_symbolic_link_does_not_lead_outside(house, session, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "train.csv").write_text("url,query,annotation\na.jpg,What?,This.\n")
    (house.root / "link").symlink_to(elsewhere)
    refused(house, session, Forbidden, "csv_train", csv_train=str(house.root / "link" / "train.csv"))
    refused(house, session, Forbidden, "image_root", image_root=str(house.root / "link"))


def test_a_path_that_is_none_is_refused(house, session):
    refused(house, session, Invalid, "image_root", image_root="a\0b")


def test_a_directory_without_a_model_is_refused(house, session):
    refused(house, session, BadInput, r"vision_model: .* no model directory: it has no config\.json", vision_model=str(house.root))


def test_what_the_stages_cannot_do_is_refused(house, session):
    refused(house, session, BadInput, r"stages\.vision\.batch_size is 2", stage="vision", stages={"vision": {"batch_size": 2}})


def test_a_start_without_a_note_is_refused(house, session):
    (house.root / "bare.ckpt").write_bytes(b"weights")
    refused(house, session, BadInput, r"bare\.ckpt\.json is missing", init_from=str(house.root / "bare.ckpt"))


def test_a_start_of_a_later_stage_is_refused(house, session, checkpoint):
    refused(
        house,
        session,
        BadInput,
        "is of stage resampler, which cannot start the earlier stage vision",
        stage="vision",
        init_from=str(checkpoint),
    )


def test_models_that_do_not_say_what_they_are_cannot_take_a_start(house, session, checkpoint):
    vague = models(house.root)
    (house.root / "language" / "config.json").write_text("{}")
    refused(house, session, BadInput, "config.json does not say its 'model_type'", init_from=str(checkpoint), **vague)
    (house.root / "language" / "config.json").write_text("[1]")
    refused(house, session, BadInput, "no JSON object", init_from=str(checkpoint), **vague)


def test_a_start_of_another_architecture_is_refused(house, session, checkpoint):
    wide = models(house.root, hidden_size=16)
    refused(house, session, BadInput, "vision_width is 8 there and 16 here", init_from=str(checkpoint), **wide)


def test_the_first_stage_starts_from_the_checkpoint_that_was_named(house, session, checkpoint):
    house.create(session, stage="resampler,finetune", init_from=str(checkpoint), **models(house.root))
    first, second = session.exec(select(StageRun).order_by(StageRun.position)).all()
    assert (first.init_checkpoint, second.init_checkpoint) == (str(checkpoint), None)


def test_the_same_request_with_the_same_key_is_one_run(house, session):
    first = runs.create(session, house.config(), house.settings, "ann", request_key="mine")
    assert runs.create(session, house.config(), house.settings, "ann", request_key="mine") is first
    assert len(session.exec(select(Job)).all()) == 1


def test_another_request_with_the_same_key_is_a_conflict(house, session):
    runs.create(session, house.config(), house.settings, "ann", request_key="mine")
    with pytest.raises(Conflict, match="The key 'mine' was used for run 1, which asked for something else"):
        runs.create(session, house.config(seed=1), house.settings, "ann", request_key="mine")


def test_the_same_request_at_the_same_moment_is_one_run(house):
    def create(_):
        with house.writing.begin() as session:
            return runs.create(session, house.config(), house.settings, "ann", request_key="mine").id

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(create, range(8)))) == 1


def test_files_of_an_older_database_are_left_alone(house, session):
    old = Path(house.settings.artifacts, "run-1", "vlm_resampler", "attempt-1")
    old.mkdir(parents=True)
    (old / "events.jsonl").write_text("{}\n")
    assert house.create(session).directory == f"{house.settings.artifacts}/run-1.2"


def test_an_id_is_never_given_twice(house):
    with house.writing.begin() as session:
        house.create(session)
    with house.writing.begin() as session:
        session.delete(session.get_one(Run, 1))
    with house.writing.begin() as session:
        assert house.create(session).id == 2
        assert [job.run_id for job in session.exec(select(Job))] == [2]
