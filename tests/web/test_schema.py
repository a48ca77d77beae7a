from panollava.config import RunConfig
from panollava.presets import PRESETS


def test_the_run_schema_describes_every_field(house):
    schema = house.read.get("/schema/run").json()
    assert schema["properties"].keys() == RunConfig.model_fields.keys()
    assert all(field["description"] for field in schema["properties"].values())


def test_the_presets_are_told(house):
    assert house.read.get("/presets").json() == PRESETS


def test_openapi_names_every_operation_after_its_verb_and_what_a_refusal_looks_like(house):
    openapi = house.read.get("/openapi.json").json()
    operations = {operation["operationId"]: operation for path in openapi["paths"].values() for operation in path.values()}
    assert {"create_run", "stop_run", "stream_events", "compare_evaluations", "revoke_token"} <= operations.keys()
    assert operations["create_run"]["responses"]["default"]["content"]["application/problem+json"]["schema"]["$ref"].endswith("/Problem")
    assert all("security" in operation for name, operation in operations.items() if name not in ("is_alive", "is_ready"))
    assert all(operation["description"] for operation in operations.values())


def test_a_plan_says_what_each_stage_will_take(house):
    body = {"preset": "demo", "config": {"stage": "finetune", "csv_train": house.table, "csv_val": house.table}}
    (stage,) = house.launch.post("/plan", body).json()["stages"]
    assert (stage["learning"], stage["parameters"], stage["image_tokens"], stage["steps"]) == (45_696, 834_048, 32, 1)
    assert stage["memory"]["total"] > stage["memory"]["weights"] == 4 * 834_048


def test_a_plan_refuses_a_text_budget_that_the_models_turns_eat_up(house):
    plan = house.launch.post("/plan", {"preset": "demo", "config": {"stages": {"finetune": {"max_text_length": 16}}}}).json()
    why = {each["field"]: each["message"] for each in plan["errors"]}
    assert "max_text_length is 16, of which the prompt leaves 5" in why["stages.finetune.max_text_length"]
