"""What hypothesis makes of the worst that a file can say: texts, JSON values, fields of a spec, bytes."""

from typing import Any

from hypothesis import strategies as st

from producer.manifests.columns import FIELDS

#: Control characters of both kinds, marks and overrides of the writing direction, what cannot be seen, what separates
#: lines, what no UTF-8 has, right-to-left letters, an accent alone, a letter of two code units.
HOSTILE_CHARACTERS = (
    "\0\a\b\t\n\v\f\r\x1b\x7f\x85\x9b\u061c\u200b\u200d\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066"
    "\u2067\u2068\u2069\ufeff\ufffe\uffff\U000e0041\ue000\ud800\udfff\u05e9\u0627\u0301\U0001f98a\"'<>&,:;\\{}[]()%"
)
#: What no spec may hold, because no database or file could.
UNSTORABLE = "\0\ud800\udfff"

STORABLE_CHARACTERS = "".join(c for c in HOSTILE_CHARACTERS if c not in UNSTORABLE)
_HTML = """<script>alert("1")</script> & </h2><img src=x onerror=alert(1)> '"> {0}"""


def _texts(hostile: str, others: st.SearchStrategy[str], min_size: int) -> st.SearchStrategy[str]:
    """Everything that does harm at once, some of it, and what hypothesis thinks of."""
    return (
        st.just(hostile)
        | st.just(_HTML)
        | st.text(st.sampled_from(hostile), min_size=max(min_size, 1), max_size=30)
        | st.text(others, min_size=min_size, max_size=200)
    )


_storable = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
any_text = _texts(HOSTILE_CHARACTERS, st.characters(exclude_categories=()), 0)
storable_text = _texts(STORABLE_CHARACTERS, _storable, 0)
some_text = _texts(STORABLE_CHARACTERS, _storable, 1)

numbers = (
    st.integers(-(2**70), 2**70)
    | st.floats()
    | st.sampled_from([0, 1, -1, 8, 64, 1001, 1024, 100_000, 10**9, 2**64 - 1, 2**64, 10**400, -0.0, 5e-324, 1e308])
)
numbers_as_text = st.sampled_from(
    [
        "",
        " ",
        "0",
        "-0",
        "1_0",
        "1e400",
        "-1e400",
        "NaN",
        "Infinity",
        "inf",
        "0x10",
        "٣",
        "1.0",
        "64",
        "0.8",
        "1,1",
        "--1",
    ]
)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | numbers_as_text | any_text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(any_text, inner, max_size=4),
    max_leaves=6,
)

_likely = st.sampled_from(
    ["a cat", "euler", "DPM++ 2M Karras", "ddim", "unipc", "ensemble", "img2img", "only", "off", "lossless",
     "diffusers", "png", "webp", "jpeg", "16:9", "plain", "compel", "ab" * 32, "512,512", "true", 64, 512, 40, 0.5, 0.8,
     1, 5.0, True, [512, 512], [{"name": "a", "sha256": "cd" * 32, "weight": 0.5}], {"mode": "off"}, {"start": 0.9},
     {"format": "webp"}, {"use_karras_sigmas": True}]
)  # fmt: skip
field_names = (
    st.sampled_from([*FIELDS, "refiner", "output", "scheduler_options", "refiner.startStep", "refiner.model"])
    | st.sampled_from(["Prompt", "PROMPT ", "Negative Prompt", "seed", "width", "Category"])
    | any_text
)


def rows(values: Any = None) -> st.SearchStrategy[dict[str, Any]]:
    """Rows as JSONL has them: most of their values are what some field takes, a few are anything."""
    return st.fixed_dictionaries(
        {"prompt": st.just("a cat") | any_text},
        optional={"seed": st.just(7) | numbers, "width": st.just(64) | numbers, "scheduler": _likely},
    ).flatmap(
        lambda row: st.dictionaries(field_names, _likely | (values or json_values), max_size=4).map(
            lambda more: {**row, **more}
        )
    )


#: Pieces of files, whole and broken.
pieces = st.sampled_from(
    [b"Prompt", b"Width", b"\t", b",", b"\n", b"\r\n", b"\r", b'"', b'""', b"\0", b"\xff", b"\xef\xbb\xbf", b"\xff\xfe",
     b"\xfe\xff", b"a cat", b"64", b"{", b"}", b"[", b"]", b":", b'{"prompt": "a"', b'{"prompt": "a"}', b"null", b"NaN",
     b"-Infinity", b"1e400", b'"\\ud800"', b'"\\u0000"', "\u202e".encode(), "\U0001f98a".encode(), b"\xed\xa0\x80",
     b"\x1b[31m", b"PAR1", b"\x1f\x8b", b"PK\x03\x04", b"refiner.mode", b"off", b" "]
) | st.binary(max_size=6)  # fmt: skip
any_bytes = st.lists(pieces, max_size=30).map(b"".join)


def assert_is_sentence(said: object, max_characters: int = 10_000) -> None:
    """What a terminal may be given: nothing that moves its cursor or turns its text, and no end of it."""
    assert str(said).isprintable()
    assert len(str(said)) < max_characters
