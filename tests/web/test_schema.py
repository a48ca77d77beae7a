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
