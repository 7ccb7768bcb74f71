"""What the web page decides without a server: whom it believes, how often, where pages begin, what is new."""

import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from starlette.datastructures import Headers

from producer.questions.queries import BatchSummary
from producer.web.cursors import after_cursor, cursor
from producer.web.happenings import Happenings
from producer.web.image_stream import Span, media_type_of, wanted_span
from producer.web.moment import Moment
from producer.web.origins import Hosts, cross_site_flaw, is_from_this_machine, is_loopback, is_over_tls
from producer.web.rates import Rates
from producer.web.seen_tokens import SeenTokens
from schemas.errors import InputError, RequestError, SettingsError, StorageError
from schemas.token import PREFIX, new_token, parsed_scopes, token_sha256

HOSTS = Hosts.parse("farm.example.org, 10.0.0.5:8470", "127.0.0.1")


# --- whose request it is ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:8470", "127.0.0.1:1", "[::1]:8470", "[::1]", "Farm.example.org:443", "10.0.0.5:8470"],
)
def test_our_own_names_are_allowed_whatever_the_port_and_others_with_the_one_that_is_named(host: str) -> None:
    assert HOSTS.allow(host)


@pytest.mark.parametrize(
    "host",
    [None, "", "evil.example", "10.0.0.5:80", "10.0.0.5", "localhost.evil.example", "127.0.0.1.nip.io", "127.0.0.1@x",
     "localhost:8470, evil.example", "localhost:", "[::2]", "farm.example.org/", "[farm.example.org]"],
)  # fmt: skip
def test_a_strangers_name_that_leads_here_is_not_ours(host: str | None) -> None:
    assert not HOSTS.allow(host)


def test_where_we_listen_is_a_name_of_ours_unless_it_is_everywhere() -> None:
    assert Hosts.parse("", "192.0.2.1").allow("192.0.2.1:8470")
    assert not Hosts.parse("", "0.0.0.0").allow("0.0.0.0:8470")


def test_a_name_that_is_none_is_refused_with_the_setting() -> None:
    with pytest.raises(SettingsError, match=r"web_hosts: 'http://farm.example.org'"):
        Hosts.parse("http://farm.example.org", "127.0.0.1")


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.9.1", "::1", "localhost", "::ffff:127.0.0.1"])
def test_loopback_is_of_this_machine(address: str) -> None:
    assert is_loopback(address)


@pytest.mark.parametrize("address", [None, "", "0.0.0.0", "::", "192.0.2.1", "evil.example", "::ffff:192.0.2.1"])
def test_everything_else_is_not(address: str | None) -> None:
    assert not is_loopback(address)


@pytest.mark.parametrize("name", ["X-Forwarded-For", "Forwarded", "Via", "X-Real-IP", "X-Forwarded-Proto"])
def test_who_comes_through_a_proxy_is_not_believed_to_be_on_this_machine(name: str) -> None:
    assert is_from_this_machine("127.0.0.1", {})
    assert not is_from_this_machine("127.0.0.1", Headers({name: "127.0.0.1"}))


@pytest.mark.parametrize("told", ["https", "HTTPS", "https, http", "https,http"])
def test_any_proxy_is_believed_about_tls_for_who_lies_locks_out_himself(told: str) -> None:
    assert is_over_tls("http", {"x-forwarded-proto": told})
    assert is_over_tls("https", {})


@pytest.mark.parametrize("headers", [{}, {"x-forwarded-proto": "http"}, {"x-forwarded-proto": "http, https"}])
def test_without_tls_a_cookie_may_go_without(headers: Mapping[str, str]) -> None:
    assert not is_over_tls("http", headers)


def test_the_documented_proxy_passes_on_what_is_compared() -> None:
    """nginx' $host has no port, and a farm may be at one that browsers name."""
    ours = {"origin": "https://farm.example:8443", "host": "farm.example:8443"}
    assert cross_site_flaw("POST", False, ours) is None
    assert cross_site_flaw("POST", False, {**ours, "host": "farm.example"}) is not None
    said = " ".join((Path(__file__).parents[2] / "docs" / "security.md").read_text().split())
    assert re.findall(r"proxy_set_header (\S+) (\S+);", said) == [
        ("Host", "$http_host"), ("X-Forwarded-Proto", "$scheme"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("POST", {"sec-fetch-site": "cross-site"}),
        ("POST", {"sec-fetch-site": "same-site"}),
        ("DELETE", {"origin": "http://evil.example", "host": "localhost:8470"}),
        ("POST", {"origin": "null", "host": "localhost:8470"}),
        ("POST", {"origin": "http://localhost:9999", "host": "localhost:8470"}),
        ("POST", {"origin": "http://[", "host": "localhost"}),
        ("POST", {"sec-fetch-site": "none", "origin": "http://evil.example", "host": "localhost"}),
        ("GET", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}),
    ],
)
def test_what_a_page_of_another_site_sends_is_refused(method: str, headers: Mapping[str, str]) -> None:
    assert cross_site_flaw(method, True, headers)


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("POST", {"host": "localhost"}),  # a program
        ("POST", {"sec-fetch-site": "same-origin", "origin": "https://farm.example.org", "host": "farm.example.org"}),
        ("POST", {"origin": "http://LOCALHOST:8470", "host": "localhost:8470"}),
        ("GET", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}),  # somebody follows a link
        ("GET", {"sec-fetch-site": "same-origin"}),
    ],
)
def test_what_our_pages_and_programs_send_is_not(method: str, headers: Mapping[str, str]) -> None:
    assert cross_site_flaw(method, True, headers) is None


# --- tokens ----------------------------------------------------------------------------------------------------------


def test_a_token_has_256_random_bits_and_its_hash_says_nothing_of_it() -> None:
    first, second = new_token(), new_token()
    assert first != second
    assert first.startswith(PREFIX)
    assert len(first) == len(PREFIX) + 43
    assert first[len(PREFIX) :] not in token_sha256(first)


def test_scopes_are_those_that_there_are() -> None:
    assert sorted(parsed_scopes(["read", "submit", "read"])) == ["read", "submit"]
    with pytest.raises(InputError, match='--scope "write": scopes are read, submit, operate'):
        parsed_scopes(["read", "write"])
    with pytest.raises(InputError, match="without a scope"):
        parsed_scopes([])


# --- rates -----------------------------------------------------------------------------------------------------------


class Seconds:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_empties_and_fills_steadily_and_each_asker_has_their_own() -> None:
    clock = Seconds()
    rates = Rates(60, clock)
    assert [rates.wait_seconds("a") for _ in range(60)] == [0.0] * 60
    assert rates.wait_seconds("a") == 1.0
    assert rates.wait_seconds("b") == 0.0
    clock.now += 0.5
    assert rates.wait_seconds("a") == 0.5  # asking too early costs nothing
    clock.now += 0.5
    assert rates.wait_seconds("a", is_counted=False) == 0.0
    assert [rates.wait_seconds("a") for _ in range(2)] == [0.0, 1.0]


def test_of_many_askers_those_who_asked_long_ago_are_forgotten() -> None:
    rates = Rates(1, Seconds())
    for n in range(10_001):
        assert rates.wait_seconds(str(n)) == 0.0
    assert rates.wait_seconds("10000") == 60.0
    assert rates.wait_seconds("0") == 0.0


def test_of_tokens_that_were_valid_those_that_were_shown_long_ago_are_forgotten() -> None:
    seen = SeenTokens()
    for n in range(10_000):
        seen.note(str(n), is_valid=True)
    seen.note("0", is_valid=True)
    seen.note("10000", is_valid=True)
    assert ["0" in seen, "1" in seen, "2" in seen, "10000" in seen] == [True, False, True, True]
    seen.note("2", is_valid=False)
    assert "2" not in seen


# --- cursors ---------------------------------------------------------------------------------------------------------


def test_a_cursor_holds_where_the_next_page_begins() -> None:
    assert after_cursor(cursor(17, "jobs", 3, ["done"]), "jobs", 3, ["done"]) == 17
    assert after_cursor(None, "jobs") is None


def test_a_cursor_of_another_list_is_refused() -> None:
    with pytest.raises(RequestError, match="other filters"):
        after_cursor(cursor(17, "jobs", 3, ["done"]), "jobs", 3, ["failed"])


@pytest.mark.parametrize(
    "text", ["", "x", "17", "W10", "bnVsbA", "é", "WyJhIiwgLTFd", "WyJhIiwgMS41XQ", "[" * 200, "A" * 199]
)
def test_a_cursor_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(RequestError) as caught:
        after_cursor(text, "jobs")
    assert (caught.value.status, caught.value.request_code) == (422, "cursor")


# --- parts of an image -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "span"),
    [
        (None, Span(0, 10)),
        ("bytes=2-5", Span(2, 6)),
        ("bytes=2-", Span(2, 10)),
        ("bytes=-3", Span(7, 10)),
        ("bytes=-30", Span(0, 10)),
        ("bytes=9-99", Span(9, 10)),
        ("bytes=10-", None),
        ("bytes=-0", None),
        ("bytes=5-2", Span(0, 10)),  # RFC 9110: not valid, and then there is no Range
        ("bytes=0-1,3-4", Span(0, 10)),
        ("lines=1-2", Span(0, 10)),
        ("bytes=-", Span(0, 10)),
    ],
)
def test_a_part_is_given_where_one_is_asked_for_as_we_answer_it(header: str | None, span: Span | None) -> None:
    assert wanted_span(header, 10) == span


SHA256 = "ab" * 32


def test_a_file_is_an_image_by_its_key_and_of_the_kind_that_the_key_says() -> None:
    assert media_type_of(f"s3://bucket/x/ab/ab/{SHA256}.webp", SHA256) == "image/webp"


@pytest.mark.parametrize(
    "uri",
    ["file:///etc/passwd", f"file:///images/ab/ab/{SHA256}.svg", f"file:///images/ab/ab/{SHA256}.html",
     f"file:///images/ab/ab/{'cd' * 32}.png", f"file:///images/ab/ab/../ab/{SHA256}.png/x", "", SHA256],
)  # fmt: skip
def test_whatever_else_the_ledger_might_name_is_no_image(uri: str) -> None:
    with pytest.raises(StorageError, match="no image of an image store"):
        media_type_of(uri, SHA256)


# --- what is new -----------------------------------------------------------------------------------------------------

NOW = datetime(2026, 11, 21, 22, 0, tzinfo=UTC)


def batch(number: int, num_pending: int = 2, **counters: Any) -> BatchSummary:
    zeros = {f"num_{state}": 0 for state in ("queued", "running", "done", "failed", "canceled")}
    given = {**zeros, "num_pending": num_pending, **counters}
    return BatchSummary(number, "cats", "tiny", "open", 5, 1.0, None, None, None, NOW, **given)


def moment(*batches: BatchSummary, gone: Collection[int] = ()) -> Moment:
    return Moment(NOW, batches, [], max((batch.id for batch in batches), default=3), frozenset(gone))


def seen(happenings: Happenings, *batches: BatchSummary) -> list[tuple[str, str]]:
    return list(happenings.seen(moment(*batches), redis_answers=True))


@pytest.fixture
def happenings() -> Happenings:
    """After the first look, at which there was no batch."""
    begun = Happenings("")
    seen(begun)
    return begun


def test_what_is_there_is_told_first_of_all_and_not_before_somebody_looked() -> None:
    happenings = Happenings("")
    assert happenings.present == {}
    assert seen(happenings, batch(3)) == [("ledger", ""), ("redis", ""), ("batch", "3")]
    assert list(happenings.present) == [("ledger", ""), ("redis", ""), ("batch", "3")]


def test_a_batch_is_told_when_it_comes_when_it_changes_when_it_ends_and_no_more(happenings: Happenings) -> None:
    assert seen(happenings, batch(3)) == [("batch", "3")]
    assert seen(happenings, batch(3)) == []
    assert seen(happenings, batch(3, 1, num_done=1)) == [("batch", "3")]
    assert ("batch", "3") in happenings.present
    assert seen(happenings, batch(3, 0, num_done=2)) == [("batch", "3")]
    assert ("batch", "3") not in happenings.present
    assert (happenings.known, happenings.newest) == (set(), 3)
    assert seen(happenings) == []


def test_a_redis_that_falls_silent_is_told_once_and_when_it_answers_again(happenings: Happenings) -> None:
    for redis_answers, news in ((True, []), (False, [("redis", "")]), (False, []), (True, [("redis", "")])):
        assert list(happenings.seen(moment(), redis_answers=redis_answers)) == news


def test_a_batch_that_is_gone_is_told_so(happenings: Happenings) -> None:
    seen(happenings, batch(3))
    assert happenings.seen(moment(gone=[3]), redis_answers=True) == {("removed", "3"): {"id": 3}}


def test_only_the_youngest_batches_are_followed(happenings: Happenings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("producer.web.happenings.MAX_BATCHES", 1)
    seen(happenings, batch(3))
    assert seen(happenings, batch(4), batch(3)) == [("batch", "4")]
    assert happenings.known == {4}
    assert ("batch", "3") not in happenings.present


def test_a_ledger_that_falls_silent_is_told_once_and_when_it_answers_again(happenings: Happenings) -> None:
    assert happenings.silence() == {("ledger", ""): {"answers": False}}
    assert happenings.silence() == {}
    assert seen(happenings) == [("ledger", "")]
