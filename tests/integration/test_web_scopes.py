"""Every route of the page and of the API asks for a scope: the list is the application's own, so none is forgotten."""

from collections.abc import Iterator

import pytest
from fastapi.routing import APIRoute, iter_route_contexts

from producer.web.app import web_app
from schemas.token import Scope
from tests.integration.ledger_farm import open_batch
from tests.integration.web_farm import ALL, FarmWithPage, farm_with_page

#: for who has no token, or any
OPEN = frozenset(
    {
        ("GET", "/login"), ("POST", "/login"), ("POST", "/logout"), ("GET", "/api/v1/health"),
        ("POST", "/api/v1/session"), ("DELETE", "/api/v1/session"), ("GET", "/api/v1/caller"),
    }
)  # fmt: skip
SUBMIT = frozenset({("POST", "/try"), ("POST", "/api/v1/batches"), ("POST", "/api/v1/manifests")})
QUERY = {"left": "1/1", "right": "1/2", "file": "a.txt"}


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FarmWithPage]:
    with farm_with_page(tmp_path_factory.mktemp("web")) as farm:
        open_batch(farm.database, 1)
        yield farm


def routes(farm: FarmWithPage) -> list[tuple[str, str]]:
    """(method, path) of all that can be asked."""
    found = [one for one in iter_route_contexts(web_app(farm.page).routes) if isinstance(one.original_route, APIRoute)]
    return sorted((method, str(one.path)) for one in found for method in one.methods or ())


def needed(route: tuple[str, str]) -> Scope:
    if route in SUBMIT:
        return Scope.SUBMIT
    return Scope.READ if route[0] == "GET" else Scope.OPERATE


def test_every_route_asks_for_its_scope_and_the_others_are_none(farm: FarmWithPage) -> None:
    tokens = {scope: farm.token(*(ALL - {scope})) for scope in Scope}
    asked = [route for route in routes(farm) if route not in OPEN]
    assert len(asked) > 30
    with farm.client() as client:
        for route in asked:
            path = route[1].format(batch_id=1, number=1)
            headers = {"authorization": f"Bearer {tokens[needed(route)]}"}
            answer = client.request(route[0], path, params=QUERY, headers=headers)
            assert (answer.status_code, "lacks the scope" in answer.text) == (403, True), route


def test_every_route_is_closed_to_who_has_no_token(farm: FarmWithPage) -> None:
    with farm.client() as client:
        client.follow_redirects = False
        for method, path in routes(farm):
            if (method, path) not in OPEN - {("GET", "/api/v1/caller")}:
                answer = client.request(method, path.format(batch_id=1, number=1), params=QUERY)
                is_led_to_login = (answer.headers.get("location") or "").startswith("/login?")
                assert answer.status_code == 401 or is_led_to_login, path
