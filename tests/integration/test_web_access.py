"""Who may ask the web page for what: tokens, this machine, and pages of other sites. On a real ledger."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import event, select
from sqlalchemy.exc import OperationalError
from typer.testing import CliRunner

from farm.tokens import revoke_token
from nightshift import app as command
from producer.web.callers import COOKIE
from producer.web.shared_answers import SharedAnswers
from schemas.token import Scope
from schemas.web_tables import Token
from tests.integration.asked import asked_of
from tests.integration.ledger_farm import open_batch
from tests.integration.web_client import AFAR, HERE
from tests.integration.web_farm import FarmWithPage, farm_with_page


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FarmWithPage]:
    with farm_with_page(tmp_path_factory.mktemp("web")) as farm:
        yield farm


# --- tokens ----------------------------------------------------------------------------------------------------------


def test_from_another_machine_nothing_is_seen_without_a_token(farm: FarmWithPage) -> None:
    with farm.client() as client:
        for path in ("/batches", "/batches/1", "/batches/1/jobs/1/image", "/events", "/caller"):
            answer = client.get(f"/api/v1{path}")
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert client.post("/api/v1/manifests?file=a.txt", content=b"a cat").status_code == 401
        assert client.get("/api/v1/health").status_code == 200


@pytest.mark.parametrize("header", ["Bearer nst_wrong", "Bearer", "Basic abc", "", "Bearer \xff"])
def test_a_token_that_is_none_is_refused_on_this_machine_too(farm: FarmWithPage, header: str) -> None:
    with farm.client(peer=HERE) as client:
        assert client.get("/api/v1/batches", headers={"authorization": header.encode("latin-1")}).status_code == 401
        assert client.get("/api/v1/batches").status_code == 200


def test_a_token_may_what_its_scopes_say_and_nothing_else(farm: FarmWithPage) -> None:
    batch_id = open_batch(farm.database, 1)
    asked = {
        Scope.READ: ("GET", f"/api/v1/batches/{batch_id}", None, 200),
        Scope.SUBMIT: ("POST", "/api/v1/batches", {"rows": [{"prompt": "x"}]}, 201),
        Scope.OPERATE: ("POST", f"/api/v1/batches/{batch_id}/reprioritise", {"priority": 1}, 200),
    }
    for scope in Scope:
        with farm.client(farm.token(scope)) as client:
            for needed, (method, path, body, status) in asked.items():
                answer = client.request(method, path, json=body)
                assert answer.status_code == (status if needed == scope else 403)
                assert needed == scope or answer.json()["code"] == "scope"
            assert client.get("/api/v1/caller").json()["scopes"] == [scope]


def test_who_may_submit_may_cancel_what_it_submitted_and_nothing_else(farm: FarmWithPage) -> None:
    theirs, order = open_batch(farm.database, 1), {"rows": [{"prompt": "mine"}]}
    with farm.client(farm.token(Scope.SUBMIT)) as other:
        others = other.post("/api/v1/batches", json=order).json()["batch_id"]
    with farm.client(farm.token(Scope.SUBMIT)) as client:
        mine = client.post("/api/v1/batches", json=order).json()["batch_id"]
        for batch_id, status in ((theirs, 403), (others, 403), (999_999, 403), (mine, 200)):
            assert client.post(f"/api/v1/batches/{batch_id}/cancel").status_code == status
            assert client.post(f"/api/v1/batches/{batch_id}/pause").status_code == 403
    with farm.client(farm.token(Scope.READ)) as client:
        assert client.post(f"/api/v1/batches/{others}/cancel").json()["code"] == "scope"


def test_a_revoked_token_is_worth_nothing(farm: FarmWithPage) -> None:
    with farm.client(farm.token()) as client:
        name = client.get("/api/v1/caller").json()["name"]
        revoke_token(farm.database, name)
        assert client.get("/api/v1/batches").status_code == 401


def test_the_ledger_has_hashes_alone(farm: FarmWithPage) -> None:
    token = farm.token()
    with farm.database.begin(read_only=True) as tx:
        rows = tx.execute(select(Token)).all()
    assert rows
    assert token not in repr(rows)


def test_a_token_never_reaches_beyond_its_ceiling(farm: FarmWithPage) -> None:
    batch_id = open_batch(farm.database, 1)
    with farm.client(farm.token(max_priority=3)) as client:
        above = client.post("/api/v1/batches", json={"rows": [{"prompt": "x"}], "priority": 4})
        assert (above.status_code, above.json()["code"]) == (403, "priority_ceiling")
        assert client.post(f"/api/v1/batches/{batch_id}/reprioritise", json={"priority": 4}).status_code == 403
        assert client.post(f"/api/v1/batches/{batch_id}/reprioritise", json={"weight": 2}).status_code == 200
        made = client.post("/api/v1/batches", json={"rows": [{"prompt": "x"}]}).json()["batch_id"]
        assert client.get(f"/api/v1/batches/{made}").json()["priority"] == 3


@pytest.fixture(scope="module")
def rationed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FarmWithPage]:
    """Two requests a minute, and four pictures."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("producer.web.farm._VIEWING", 2)
        with farm_with_page(tmp_path_factory.mktemp("rates"), web_requests_per_minute=2) as farm:
            yield farm


def test_a_token_that_asks_too_often_waits_and_others_do_not(rationed: FarmWithPage) -> None:
    with rationed.client(rationed.token()) as client:
        statuses = [client.get("/api/v1/caller").status_code for _ in range(3)]
        assert statuses == [200, 200, 429]
        assert 1 <= int(client.get("/api/v1/caller").headers["retry-after"]) <= 30
    with rationed.client(rationed.token()) as client:
        assert client.get("/api/v1/caller").status_code == 200
    with rationed.client("nst_guessed", peer="192.0.2.99") as client:
        assert [client.get("/api/v1/caller").status_code for _ in range(3)] == [401, 401, 429]
    with rationed.client(peer=HERE) as client:
        assert {client.get("/api/v1/caller").status_code for _ in range(5)} == {200}


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/batches/1/jobs/1/thumbnail", 404),
        ("/api/v1/batches/1/jobs/1/image", 404),
        ("/batches/1/card", 404),
        ("/devices/table", 200),
    ],
)
def test_what_an_open_page_asks_for_is_counted_apart_and_bounded_too(
    rationed: FarmWithPage, path: str, status: int
) -> None:
    """A part of a gallery has sixty pictures, and fifty who look at one may have one token."""
    with rationed.client(rationed.token(Scope.READ)) as client:
        assert [client.get(path).status_code for _ in range(5)] == [*[status] * 4, 429]
        assert 1 <= int(client.get(path).headers["retry-after"]) <= 15
        assert client.get("/api/v1/caller").status_code == 200
    with rationed.client(rationed.token(Scope.SUBMIT)) as client:
        assert client.get(path).status_code == 403
    with rationed.client("nst_guessed", peer=f"192.0.2.{len(path)}") as client:
        statuses = [client.get(path, follow_redirects=False).status_code for _ in range(3)]
        assert statuses in ([401, 401, 429], [303, 303, 429])


def test_who_guesses_on_costs_the_ledger_nothing_and_who_has_a_token_goes_on(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with farm_with_page(tmp_path_factory.mktemp("guesses"), web_requests_per_minute=2) as farm:
        known, revoked, new = farm.token(), farm.token(), farm.token()
        with farm.client() as client:

            def ask(token: str) -> int:
                return client.get("/api/v1/caller", headers={"authorization": f"Bearer {token}"}).status_code

            assert [ask(known), ask(revoked)] == [200, 200]
            assert [ask(f"nst_{n}") for n in range(3)] == [401, 401, 429]
            with asked_of(farm.page.database) as asked:
                assert [ask("nst_guessed"), ask(new)] == [429, 429]
                assert asked == []
                assert ask(known) == 200
                assert any("tokens" in question for question in asked)
            revoke_token(farm.database, "token 2")
            assert ask(revoked) == 429
            with asked_of(farm.page.database) as asked:
                assert ask(revoked) == 429
                assert asked == []


@pytest.fixture
def timeless(farm: FarmWithPage) -> FarmWithPage:
    """Whose page keeps an answer for as long as the test takes."""
    return FarmWithPage(replace(farm.page, shared=SharedAnswers(lambda: 0.0)), farm.database)


def test_any_number_who_ask_how_the_page_is_cost_the_ledger_one_question(timeless: FarmWithPage) -> None:
    with timeless.client() as client, asked_of(timeless.page.database) as asked:
        assert client.get("/api/v1/health").status_code == 200
        once = len(asked)
        assert [client.get("/api/v1/health").status_code for _ in range(4)] == [200] * 4
    assert 0 < once == len(asked)


def test_a_ledger_that_is_away_is_told_to_all_who_ask_how_the_page_is(timeless: FarmWithPage) -> None:
    asked: list[int] = []

    def away(*_: Any) -> None:
        asked.append(1)
        raise OperationalError("BEGIN", {}, Exception("it is away"))

    event.listen(timeless.page.database.engine, "before_cursor_execute", away)
    with timeless.client() as client:
        answers = [client.get("/api/v1/health") for _ in range(3)]
    event.remove(timeless.page.database.engine, "before_cursor_execute", away)
    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(503, "database_unavailable")] * 3
    assert len(asked) == 1


# --- this machine ----------------------------------------------------------------------------------------------------


def test_a_proxy_on_this_machine_opens_nothing(farm: FarmWithPage) -> None:
    with farm.client(peer=HERE) as client:
        assert client.get("/api/v1/caller").json()["name"] is None
        assert client.get("/api/v1/caller", headers={"X-Forwarded-For": "127.0.0.1"}).status_code == 401


def test_no_header_makes_somebody_else_be_on_this_machine(farm: FarmWithPage) -> None:
    with farm.client() as client:
        for name in ("X-Forwarded-For", "X-Real-IP", "Forwarded", "Client-IP"):
            assert client.get("/api/v1/caller", headers={name: "127.0.0.1"}).status_code == 401


def test_tokens_may_be_wanted_of_everybody(tmp_path_factory: pytest.TempPathFactory) -> None:
    with farm_with_page(tmp_path_factory.mktemp("closed"), web_require_token=True) as farm:
        with farm.client(peer=HERE) as client:
            assert client.get("/api/v1/batches").status_code == 401
        with farm.client(farm.token(), peer=HERE) as client:
            assert client.get("/api/v1/batches").status_code == 200


# --- pages of other sites --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8470", "192.0.2.1:8470", "localhost.evil.example"])
def test_a_name_that_was_made_to_lead_here_is_refused(farm: FarmWithPage, host: str) -> None:
    with farm.client(peer=HERE) as client:
        answer = client.get("/api/v1/batches", headers={"host": host})
        assert (answer.status_code, answer.json()["code"]) == (421, "host")


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site", "origin": "http://127.0.0.1:9999"},
    ],
)
def test_a_page_of_another_site_can_change_nothing(farm: FarmWithPage, headers: dict[str, str]) -> None:
    """It may send what a form sends, which needs no leave of ours: so with a form's content types, too."""
    batch_id = open_batch(farm.database, 1)
    with farm.client(peer=HERE) as client:
        for kind in ("text/plain", "application/x-www-form-urlencoded", "application/json"):
            asked = {**headers, "content-type": kind}
            for path in (f"batches/{batch_id}/cancel", "batches", "manifests?file=a.txt", "session"):
                answer = client.post(f"/api/v1/{path}", content=b"{}", headers=asked)
                assert (answer.status_code, answer.json()["code"]) == (403, "cross_site")
        assert client.get(f"/api/v1/batches/{batch_id}").json()["state"] == "open"


def test_a_page_of_ours_can(farm: FarmWithPage) -> None:
    batch_id = open_batch(farm.database, 1)
    ours = {"origin": "http://127.0.0.1:8470", "sec-fetch-site": "same-origin"}
    with farm.client(peer=HERE) as client:
        assert client.post(f"/api/v1/batches/{batch_id}/pause", headers=ours).status_code == 200


def test_a_page_of_another_site_can_load_nothing_either(farm: FarmWithPage) -> None:
    with farm.client(peer=HERE) as client:
        headers = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}
        assert client.get("/api/v1/batches", headers=headers).status_code == 403
        assert client.get("/api/v1/batches").headers["cross-origin-resource-policy"] == "same-origin"


@pytest.mark.parametrize("path", ["/api/v1/batches", "/nowhere", "/api/v1/batches/x", "/api/v1/openapi.json"])
def test_every_answer_tells_browsers_to_run_and_frame_nothing_of_others(farm: FarmWithPage, path: str) -> None:
    with farm.client(peer=HERE) as client:
        headers = client.get(path).headers
    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["form-action"] == policy["img-src"] == policy["style-src"] == "'self'"
    assert headers["x-frame-options"] == "DENY"
    assert headers["cross-origin-opener-policy"] == headers["referrer-policy"] == "same-origin"
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert "server" not in headers


# --- the browser's cookie --------------------------------------------------------------------------------------------


def test_a_browser_logs_in_with_a_token_and_out_again(farm: FarmWithPage) -> None:
    with farm.client() as client:
        refused = client.post("/api/v1/session", json={"token": "nst_wrong"})
        assert (refused.status_code, "set-cookie" in refused.headers) == (401, False)
        answer = client.post("/api/v1/session", json={"token": farm.token(Scope.READ)})
        cookie = answer.headers["set-cookie"]
        assert all(part in cookie for part in (f"{COOKIE}=", "HttpOnly", "SameSite=strict", "Path=/"))
        assert "Secure" not in cookie
        assert client.get("/api/v1/batches").status_code == 200
        assert client.post("/api/v1/batches", json={"rows": [{"prompt": "x"}]}).status_code == 403
        assert client.delete("/api/v1/session").status_code == 204
        assert client.get("/api/v1/batches").status_code == 401


@pytest.mark.parametrize("proxy", [HERE, AFAR])
def test_behind_tls_the_cookie_never_goes_without(farm: FarmWithPage, proxy: str) -> None:
    with farm.client(peer=proxy) as client:
        body, told = {"token": farm.token()}, {"X-Forwarded-Proto": "https"}
        assert "Secure" in client.post("/api/v1/session", json=body, headers=told).headers["set-cookie"]


def test_a_cookie_is_good_for_pages_of_ours_alone(farm: FarmWithPage) -> None:
    batch_id = open_batch(farm.database, 1)
    with farm.client() as client:
        client.post("/api/v1/session", json={"token": farm.token()})
        path = f"/api/v1/batches/{batch_id}/pause"
        assert client.post(path, headers={"origin": "https://evil.example"}).status_code == 403
        assert client.post(path, headers={"origin": "http://127.0.0.1:8470"}).status_code == 200


# --- the commands ----------------------------------------------------------------------------------------------------


def run(home: str, *words: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(command, words, env={"NIGHTSHIFT_HOME": home}, catch_exceptions=True)
    said = str(done.exception or "")
    return done.exit_code, done.stdout, f"{done.stderr}{said}"


def test_a_token_is_made_shown_once_listed_and_revoked(farm: FarmWithPage) -> None:
    home = str(farm.page.settings.home)
    code, token, said = run(home, "token", "new", "frontend", "--scope", "read", "--max-priority", "4")
    assert code == 0
    assert "shown once" in said
    with farm.client(token.strip()) as client:
        assert client.get("/api/v1/caller").json() == {
            "name": "frontend", "scopes": ["read"], "max_priority": 4, "max_pending": None,
        }  # fmt: skip
    listed = run(home, "token", "list")[1]
    assert "frontend" in listed
    assert token.strip() not in listed
    assert '"revoked_at": null' in run(home, "token", "list", "--json")[1]
    assert "already" in run(home, "token", "new", "frontend", "--scope", "read")[2]
    assert "is revoked" in run(home, "token", "revoke", "frontend")[1]
    assert "no valid token" in run(home, "token", "revoke", "frontend")[2]
    with farm.client(token.strip()) as client:
        assert client.get("/api/v1/caller").status_code == 401
