from datetime import timedelta

from sqlmodel import select, update

from app import db
from app.models import Token


def use(house, secret):
    return house.client.get("/api/v1/runs", headers={"Authorization": f"Bearer {secret}"})


def test_a_token_is_shown_once_and_only_its_hash_is_kept(house):
    made = house.admin.post("/tokens", {"name": "ci", "scope": "launch"}).json()
    assert made["secret"].startswith("pl_") and len(made["secret"]) == len("pl_") + 43
    assert use(house, made["secret"]).status_code == 200
    assert made["secret"] not in house.admin.get("/tokens").text
    with house.reading() as session:
        assert made["secret"] not in session.exec(select(Token.hash)).all()


def test_a_revoked_token_opens_nothing_and_stays_in_the_list(house):
    made = house.admin.post("/tokens", {"name": "ci"}).json()
    assert house.admin.delete(f"/tokens/{made['id']}").status_code == 204
    assert use(house, made["secret"]).status_code == 401
    listed = house.admin.get("/tokens").json()["items"][0]
    assert listed["name"] == "ci" and listed["revoked_at"]


def test_revoking_a_token_that_does_not_exist_says_so(house):
    answer = house.admin.delete("/tokens/99")
    assert (answer.status_code, answer.json()["detail"]) == (404, "There is no token 99.")


def test_an_expired_token_opens_nothing(house):
    with house.reading() as session:
        past = db.now(session) - timedelta(seconds=1)
    made = house.admin.post("/tokens", {"name": "old", "expires_at": past.isoformat()}).json()
    assert use(house, made["secret"]).status_code == 401


def test_the_last_use_is_written_at_most_once_a_minute(house):
    made = house.admin.post("/tokens", {"name": "busy"}).json()

    def last_used():
        with house.reading() as session:
            return session.get_one(Token, made["id"]).last_used_at

    assert last_used() is None
    use(house, made["secret"])
    first = last_used()
    use(house, made["secret"])
    assert first and last_used() == first
    with house.writing.begin() as session:
        session.exec(update(Token).values(last_used_at=first - timedelta(minutes=2)))
    use(house, made["secret"])
    assert last_used() >= first


def test_tokens_are_listed_page_by_page_newest_first(house):
    for name in ("one", "two", "three"):
        house.admin.post("/tokens", {"name": name})
    first = house.admin.get("/tokens", limit=2).json()
    second = house.admin.get("/tokens", limit=2, cursor=first["next_cursor"]).json()
    assert [each["name"] for each in first["items"] + second["items"]] == ["three", "two", "one", "test-admin"]
