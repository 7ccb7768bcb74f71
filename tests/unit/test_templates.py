"""Templates: what they offer, counted, enumerated and drawn; what is refused of them, in bounded time and memory."""

import sys
import time
from itertools import islice
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producer.expanding.choices import MOST, Choice, Literal
from producer.expanding.given_wildcards import GivenWildcards
from producer.expanding.templates import MAX_NESTING, Templates
from producer.expanding.wildcards import Wildcards
from schemas.errors import InputError, TemplateError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "wildcards"
    (folder / "animals").mkdir(parents=True)
    (folder / "animals" / "cats.txt").write_text("lion\n\n# no cat\ntiger\nlion\n{big|small} cat\n")
    (folder / "animals" / "dogs.txt").write_text("poodle\n")
    (folder / "colours.txt").write_text("red\nblue\n")
    return folder


def texts(template: str, folder: Path | None = None) -> list[str]:
    return list(Templates(Wildcards(folder)).offer(template).texts())


def refusal(template: str, folder: Path | None = None) -> str:
    with pytest.raises(TemplateError) as error:
        Templates(Wildcards(folder)).offer(template)
    assert "\n" not in str(error.value)
    return str(error.value)


# What they offer


@pytest.mark.parametrize(
    ("template", "offered"),
    [
        ("a cat (very big), 100% #1 $5 | C++", ["a cat (very big), 100% #1 $5 | C++"]),
        ("a {red|blue} {cat|dog}", ["a red cat", "a red dog", "a blue cat", "a blue dog"]),
        ("{2$$a|b|c}", ["a,b", "a,c", "b,a", "b,c", "c,a", "c,b"]),
        ("{2$$ and $$a|b}", ["a and b", "b and a"]),
        ("{1-2$$a|b}", ["a", "b", "a,b", "b,a"]),
        ("{0-1$$very }big", ["big", "very big"]),
        ("{a|{b|c} d}", ["a", "b d", "c d"]),
        ("{3::a|b|a}", ["a", "b"]),
        ("{0::a|b}", ["b"]),
        ("{|a}", ["", "a"]),
        ("100% {a|b} #1", ["100% a #1", "100% b #1"]),
    ],
)
def test_a_template_offers_each_of_its_texts(template: str, offered: list[str]) -> None:
    assert texts(template) == offered


def test_a_wildcard_is_its_file_s_lines_each_once_and_they_may_be_templates(folder: Path) -> None:
    assert texts("a __animals/cats__", folder) == ["a lion", "a tiger", "a big cat", "a small cat"]
    assert texts("__animals/*__", folder) == ["lion", "tiger", "big cat", "small cat", "poodle"]
    assert texts("{2$$ $$__colours__}", folder) == ["red blue", "blue red"]
    assert texts("{__colours__|green}", folder) == ["red", "blue", "green"]


def test_weights_decide_how_often_an_option_is_drawn() -> None:
    offer, rand = Templates(Wildcards(None)).offer("{8::a|b|0::c|a}"), Random(1)
    drawn = [offer.drawn(rand) for _ in range(1_000)]
    assert set(drawn) == {"a", "b"}
    assert 850 < drawn.count("a") < 950


def test_the_library_is_imported_by_the_first_template(folder: Path) -> None:
    import subprocess

    code = (
        "import sys; from producer.expanding.templates import Templates\n"
        "from producer.expanding.wildcards import Wildcards\n"
        "Templates(Wildcards(None)).offer('a plain prompt'); sys.exit('dynamicprompts' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


TEXT = st.sampled_from(["a", "b", " big", "x, y", "100", "-"])


def grouped(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    options = st.lists(inner, min_size=1, max_size=3)
    choice = options.map(lambda found: "{" + "|".join(found) + "}")
    several = options.map(lambda found: f"{{{min(2, len(set(found)))}$$ & $$" + "|".join(found) + "}")
    return st.one_of(choice, several, st.lists(inner, min_size=1, max_size=3).map("".join))


TEMPLATE = st.recursive(TEXT, grouped, max_leaves=8)


@given(template=TEMPLATE, seed=st.integers(0, 2**64 - 1))
@settings(max_examples=50, deadline=None)
def test_the_count_is_what_is_enumerated_and_what_is_drawn_is_among_it(template: str, seed: int) -> None:
    try:
        offer = Templates(Wildcards(None)).offer(template)
    except TemplateError:  # two options that differ as text may be one to the parser
        return
    if offer.num_texts > 5_000:
        return
    offered = list(offer.texts())
    assert len(offered) == offer.num_texts
    assert offer.drawn(Random(seed)) in offered


@given(template=TEMPLATE)
@settings(max_examples=30, deadline=None)
def test_what_is_offered_is_what_the_library_generates(template: str) -> None:
    import warnings

    from dynamicprompts.generators import CombinatorialPromptGenerator

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        generated = CombinatorialPromptGenerator().generate(template, 2_000)
    try:
        offer = Templates(Wildcards(None)).offer(template)
    except TemplateError:
        return
    if len(generated) < 2_000 and offer.num_texts < 2_000:
        # It leaves out what reads the same as another text, and selections in which two texts are equal.
        assert set(generated) <= set(offer.texts())
        if "$$" not in template:
            assert set(generated) == set(offer.texts())


@given(nums=st.lists(st.integers(1, 4), min_size=1, max_size=4), bounds=st.tuples(st.integers(0, 4), st.integers(0, 4)))
@settings(max_examples=50, deadline=None)
def test_selections_of_options_with_several_texts_are_counted(nums: list[int], bounds: tuple[int, int]) -> None:
    fewest, most = sorted(min(bound, len(nums)) for bound in bounds)
    options = tuple(Choice(tuple(Literal(f"{n}.{k}") for k in range(num)), (1.0,) * num) for n, num in enumerate(nums))
    choice = Choice(options, (1.0,) * len(options), fewest, most)
    found = list(choice.texts())
    assert (choice.num_texts, len(set(found))) == (len(found), len(found))


# What is refused


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        ("a {b|c", "has a { at character 3 that no } closes"),
        ("a b} c", "has a } at character 4 that no { opens"),
        ("snake__case", "has __ at character 6, and no __ after it that ends a wildcard's name"),
        ("a ____", "has __ at character 3, and no wildcard's name after it"),
        ("__a{b}c__", "has __ at character 1, and no wildcard's name after it"),
        ("${x=a} b", "has ${ at character 1: variables (${...}) are not read"),
        ("%{a$$b}", "has %{ at character 1: wraps (%{...}) are not read"),
        ("a {b${x}|c}", "{b${x}|c} at character 3: variables (${...}) are not read"),
        ("{a # b|c}", "#, // and /* within braces would begin a comment"),
        ("{a$|b}", "{a$|b} at character 1: cannot be read; $ and % cannot stand in braces"),
        ("{~a|b}", "the signs ~, ! and @ are not read"),
        ("{3$$a|b}", "asks for 3 of 2 different options"),
        ("{1000000$$a|b}", "asks for 1,000,000 of 2 different options"),
        ("{2$$a|a}", "asks for 2 of 1 option"),
        ("{0::a}", "every option has the weight 0"),
        ("{-1.5::a|b}", "the weight -1.5 is not 0 or more"),
        (
            "a __cats__",
            "__cats__ at character 3: names the wildcard cats, and there is no folder of them (--wildcards)",
        ),
    ],
)
def test_a_malformed_template_is_refused_with_its_place(template: str, sentence: str) -> None:
    assert sentence in refusal(template)


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        ("__cats__", "has no such file; similar ones are animals/cats"),
        ("__colors__", "has no such file; similar ones are colours"),
        ("__birds__", "has no such file"),
        ("__../secret__", "which does not lie in"),
        ("__/etc/passwd__", "which does not lie in"),
        ("__birds/*__", "has no such file"),
        ("{1-$$__colours__}", "how many of a wildcard's values at the most is not said"),
        ("{3$$__colours__}", "asks for 3 of 2 different options"),
        ("{a|__c{o|u}lours__}", "the name of a wildcard is plain text"),
        ("__colours(x=1)__", "the name of a wildcard is plain text"),
    ],
)
def test_a_wildcard_that_is_none_is_refused(folder: Path, template: str, sentence: str) -> None:
    (folder.parent / "secret.txt").write_text("hunter2\n")
    assert sentence in refusal(template, folder)
    assert "hunter2" not in refusal(template, folder)


def test_a_link_out_of_the_folder_is_refused(folder: Path) -> None:
    secret = folder.parent / "secret.txt"
    secret.write_text("hunter2\n")
    (folder / "leak.txt").symlink_to(secret)
    (folder / "leaks").symlink_to(folder.parent)
    for name in ("leak", "leaks/secret", "le*"):
        assert "does not lie in" in refusal(f"__{name}__", folder)


def test_a_wildcard_that_names_itself_is_refused_with_the_way(folder: Path) -> None:
    (folder / "a.txt").write_text("x\n__b__\n")
    (folder / "b.txt").write_text("{y|__a__}\n")
    assert "the wildcard a names itself: a → b → a" in refusal("__a__", folder)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "which has no values"),
        (b"# only\n\n", "which has no values"),
        (b"red\n\xff\n", "whose line 2 is not UTF-8"),
        (b"red\n{a|b\n", "wildcard broken: {a|b: has a { at character 1 that no } closes"),
    ],
)
def test_a_wildcard_s_file_that_cannot_be_read_is_refused(folder: Path, content: bytes, sentence: str) -> None:
    (folder / "broken.txt").write_bytes(content)
    assert sentence in refusal("__broken__", folder)


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such folder"):
        Wildcards(tmp_path / "none")


# Hostile ones


def test_wildcards_that_double_each_other_fill_no_memory(folder: Path) -> None:
    for n in range(9):
        (folder / f"w{n}.txt").write_text(" ".join([f"__w{n + 1}__"] * 20))
    (folder / "w9.txt").write_text("x")
    assert "more than 1,000,000 characters" in refusal("__w0__", folder)


def test_wildcards_that_name_each_other_too_deep_are_refused(folder: Path) -> None:
    for n in range(20):
        (folder / f"w{n}.txt").write_text(f"__w{n + 1}__")
    assert "more than 10 deep" in refusal("__w0__", folder)


@pytest.mark.parametrize("template", ["{" * 10_000, "{" * 9_999 + "a" + "}" * 9_999, "{a|" * 5_000, "__{" * 5_000])
def test_deep_nesting_is_refused(template: str) -> None:
    assert refusal(template)


def test_the_deepest_nesting_that_may_be_is_read() -> None:
    assert texts("{" * MAX_NESTING + "a|b" + "}" * MAX_NESTING) == ["a", "b"]


def test_a_template_of_too_many_options_or_characters_is_refused() -> None:
    assert "more than 1,000 options" in refusal("{" + "a|" * 1_001 + "b}")
    assert "more than 20,000 characters" in refusal("{a|b}" + "x" * 20_000)


def test_more_combinations_than_anybody_could_enumerate_are_counted_and_only_begun() -> None:
    offer = Templates(Wildcards(None)).offer("{a|b}" * 60)
    assert offer.num_texts == 2**60
    assert list(islice(offer.texts(), 2)) == ["a" * 60, "a" * 59 + "b"]
    start = time.process_time()
    assert Templates(Wildcards(None)).offer("{1-90$$" + "|".join(map(str, range(90))) + "}").num_texts == MOST
    assert time.process_time() - start < 60  # a second; enumerated, it would not end


HOSTILE = st.text(st.sampled_from("{}|$_:%#/*~!@ab1-,.() \n"), max_size=60)


@given(template=HOSTILE)
@settings(max_examples=100, deadline=None)
def test_whatever_stands_in_a_template_it_is_read_or_refused_in_one_sentence(template: str) -> None:
    try:
        offer = Templates(Wildcards(None)).offer(template)
    except TemplateError:
        return
    assert len(list(islice(offer.texts(), 20))) == min(offer.num_texts, 20)


# Wildcards that come with the rows


def test_wildcards_may_be_given_with_the_rows_and_name_each_other() -> None:
    given = GivenWildcards(
        {"cats/small": ["lion cub", "{old|young} tiger", "lion cub"], "pet": ["__cats/small__", "dog"]}
    )
    offered = ["lion cub", "old tiger", "young tiger", "dog"]
    assert list(Templates(given).offer("__pet__").texts()) == offered


@pytest.mark.parametrize("name", ["none", "*", "cats/*", "../cats", "/etc/passwd"])
def test_a_wildcard_that_was_not_given_is_refused_and_those_that_were_are_named(name: str) -> None:
    with pytest.raises(TemplateError, match="which was not given; there are cats, dogs"):
        Templates(GivenWildcards({"cats": ["a"], "dogs": ["b"]})).offer(f"__{name}__")


@pytest.mark.parametrize(
    "given",
    [{"": ["a"]}, {"a*": ["a"]}, {"a__b": ["a"]}, {"_a": ["a"]}, {"a ": ["a"]}, {"a{": ["a"]}, {"x" * 201: ["a"]},
     {"a": []}, {"a": [" "]}, {"a": "text"}, {"a": [1]}, {str(n): ["a"] for n in range(1_001)}, {"a": ["a"] * 100_001}],
)  # fmt: skip
def test_what_no_template_could_name_or_is_too_much_is_refused(given: dict[str, list[str]]) -> None:
    with pytest.raises(InputError, match="wildcard"):
        GivenWildcards(given)


def test_options_of_weight_1_are_drawn_as_any_of_equal_weights_are() -> None:
    """They have a quicker way; manifests that were drawn before it must stay as they were."""
    options = tuple(Literal(str(number)) for number in range(12))
    once, twice = (Choice(options, (weight,) * 12, 2, 12) for weight in (1.0, 2.0))
    for seed in range(200):
        assert once.drawn(Random(seed)) == twice.drawn(Random(seed))
