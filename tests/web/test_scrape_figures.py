"""`/metrics` as a scraper asks for it: with a token, in Prometheus' format, with this process's own figures."""

import time

import httpx
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

PATIENCE = 30


def scrape(house):
    answer = house.client.get("/metrics", headers={"Authorization": f"Bearer {house.read.token}"})
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/plain")
    return [sample for family in text_string_to_metric_families(answer.text) for sample in family.samples]


def requests(house):
    """How many requests there were, by method, route and status."""
    return {tuple(each.labels.values()): each.value for each in scrape(house) if each.name == "panollava_request_seconds_count"}


def until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_it_needs_a_token_that_may_read(house):
    assert house.client.get("/metrics").status_code == 401
    assert scrape(house)


def test_requests_are_counted_by_the_template_of_their_address(house):
    house.submit()
    for id_ in (1, 1, 2):
        house.read.get(f"/runs/{id_}/logs")
    house.browser.get("/runs/1")
    house.client.get("/nowhere/else")
    house.client.get("/static/none/app.css")
    seen = requests(house)
    assert seen["GET", "/api/v1/runs/{run_id}/logs", "200"] == 2 and seen["GET", "/api/v1/runs/{run_id}/logs", "404"] == 1
    assert seen["POST", "/api/v1/runs", "201"] == 1 and seen["GET", "/runs/{run_id:int}", "200"] == 1
    assert seen["GET", "none", "404"] == 1 and seen["GET", "/static", "404"] == 1


def test_odd_methods_and_addresses_make_no_series_of_their_own(house):
    for n in range(20):
        house.client.request(f"ODD{n}", f"/nowhere/{n}")
    assert len([labels for labels in requests(house) if labels[1] == "none"]) == 1


def test_a_request_that_ends_in_a_defect_is_counted_as_500(house):
    house.app.add_api_route("/broken", lambda: 1 / 0)
    house.client.get("/broken")
    assert requests(house)["GET", "/broken", "500"] == 1


def test_open_streams_are_counted_until_they_are_closed(house, served):
    def clients():
        headers = {"Authorization": f"Bearer {house.read.token}"}
        text = httpx.get(f"{served.url}/metrics", headers=headers).text
        return next(
            sample.value for family in text_string_to_metric_families(text) for sample in family.samples if sample.name == "panollava_sse_clients"
        )

    assert clients() == 0
    with httpx.stream("GET", f"{served.url}/api/v1/events", headers={"Authorization": f"Bearer {house.read.token}"}, timeout=PATIENCE) as response:
        assert response.status_code == 200
        until(lambda: clients() == 1)
    until(lambda: clients() == 0)


def test_a_scrape_says_503_while_the_database_is_away(house):
    token = house.read.token
    house.reading.configure(bind=house.reading.kw["bind"].execution_options(schema_translate_map={None: "gone"}))
    client = TestClient(house.app, raise_server_exceptions=False)
    assert client.get("/metrics", headers={"Authorization": f"Bearer {token}"}).status_code == 503
