"""Prompts to embeddings, held against diffusers' ``encode_prompt`` and compel's ``CompelForSDXL``."""

import time

import pytest
import torch
from compel import Compel, CompelForSDXL, ReturnedEmbeddingsType

from schemas.errors import SpecError
from schemas.spec import JobSpec
from worker.passes.embedding import embed, num_chunks, stacked
from worker.passes.prompts import base_prompts, refiner_prompts
from worker.passes.remembered_texts import RememberedTexts

SENTENCE = "a red fox in the snow, with long whiskers and a bushy tail. it looks at the moon; the trees are dark. "
LONG = (SENTENCE * 5).strip()
NAMES = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")


def spec(prompt="a red fox", **fields):
    return JobSpec.parse({"prompt": prompt, "seed": 1, **fields})


def embedded(pipe, one, texts=None):
    with torch.inference_mode():
        prompts = refiner_prompts(one) if pipe.text_encoder is None else base_prompts(one)
        embeds = embed(pipe, prompts, texts or RememberedTexts())
    return tuple(getattr(embeds, name) for name in NAMES)


def by_diffusers(pipe, one):
    with torch.inference_mode():
        return pipe.encode_prompt(
            one.prompt, one.prompt_2, device="cpu", negative_prompt=one.negative_prompt,
            negative_prompt_2=one.negative_prompt_2, clip_skip=one.clip_skip,
        )  # fmt: skip


def by_compel(pipe, one):
    with torch.inference_mode():
        found = CompelForSDXL(pipe)(
            one.prompt, one.prompt_2, negative_prompt=one.negative_prompt, negative_style_prompt=one.negative_prompt_2
        )
    return found.embeds, found.negative_embeds, found.pooled_embeds, found.negative_pooled_embeds


def equal(left, right):
    return [torch.equal(a, b) for a, b in zip(left, right, strict=True)]


@pytest.mark.parametrize("prompt", ["a red fox", "a (red)++ fox--", " two  spaces ", "café 猫", "wow! wow!!"])
@pytest.mark.parametrize("negative", [None, "", "blurry, dark"])
@pytest.mark.parametrize("side", ["base", "refiner"])
def test_a_plain_prompt_of_one_chunk_is_embedded_as_diffusers_does_it(tiny, diffusers_pair, prompt, negative, side):
    reference = diffusers_pair[side == "refiner"]
    one = spec(prompt, negative_prompt=negative)
    assert equal(embedded(getattr(tiny, side), one), by_diffusers(reference, one)) == [True] * 4


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt_2": "watercolour"},
        {"negative_prompt": "dark", "negative_prompt_2": "oil"},
        {"prompt_2": "ink", "negative_prompt": "dark"},
        {"clip_skip": 1},
        {"clip_skip": 1, "prompt_2": "ink", "negative_prompt": "dark"},
    ],
)
def test_what_the_base_is_told_beside_the_prompt_is_embedded_as_diffusers_does_it(tiny, diffusers_pair, fields):
    one = spec(**fields)
    assert equal(embedded(tiny.base, one), by_diffusers(diffusers_pair[0], one)) == [True] * 4
    assert equal(embedded(tiny.base, one), embedded(tiny.base, spec())) != [True] * 4


def test_the_refiner_reads_its_own_prompts_or_the_bases_but_never_prompt_2(tiny):
    told = spec(prompt_2="ink", negative_prompt="dark", negative_prompt_2="oil", clip_skip=1)
    assert equal(embedded(tiny.refiner, told), embedded(tiny.refiner, spec(negative_prompt="dark"))) == [True] * 4
    own = spec("a car", negative_prompt="dark", refiner={"prompt": "a red fox", "negative_prompt": "red"})
    assert equal(embedded(tiny.refiner, own), embedded(tiny.refiner, spec(negative_prompt="red"))) == [True] * 4


@pytest.mark.parametrize(("prompt", "prompt_2"), [("a fox", LONG), (LONG, "watercolour"), ("a (red)++ fox", "(ink)-")])
def test_prompts_of_unequal_length_are_padded_to_one_as_compel_does_it(tiny, diffusers_pair, prompt, prompt_2):
    for syntax in ("plain", "compel") if "(" not in prompt else ("compel",):
        one = spec(prompt, prompt_2=prompt_2, negative_prompt="blurry", prompt_syntax=syntax)
        assert equal(embedded(tiny.base, one), by_compel(diffusers_pair[0], one)) == [True] * 4


def test_no_negative_prompt_is_zeros_for_the_base_and_the_empty_text_for_the_refiner(tiny):
    nothing, empty = spec(negative_prompt=None), spec(negative_prompt="")
    assert not embedded(tiny.base, nothing)[1].any()
    assert not embedded(tiny.base, nothing)[3].any()
    assert embedded(tiny.base, empty)[1].any()
    assert equal(embedded(tiny.refiner, nothing), embedded(tiny.refiner, empty)) == [True] * 4


@pytest.mark.parametrize("prompt", [LONG, "word " * 100, "x" * 400, "猫 " * 120])
@pytest.mark.parametrize("negative", ["blurry", LONG[:420]])
def test_a_long_plain_prompt_is_embedded_whole_as_compel_does_it(tiny, diffusers_pair, prompt, negative):
    one = spec(prompt, negative_prompt=negative)
    found = embedded(tiny.base, one)
    assert found[0].shape[1] >= 2 * 77
    assert found[0].shape == found[1].shape
    assert equal(found, by_compel(diffusers_pair[0], one)) == [True] * 4


def test_nothing_of_a_long_prompt_is_cut_off(tiny):
    whole = embedded(tiny.base, spec(LONG))[0]
    other_end = embedded(tiny.base, spec(LONG.removesuffix("dark.") + "bright."))[0]
    assert torch.equal(whole[:, :77], other_end[:, :77])
    assert not torch.equal(whole, other_end)


def test_a_short_positive_is_padded_to_its_own_long_negative(tiny, diffusers_pair):
    one = spec("a red fox", negative_prompt=LONG)
    found = embedded(tiny.base, one)
    assert equal(found, by_compel(diffusers_pair[0], one)) == [True] * 4
    assert torch.equal(found[0][:, :77], embedded(tiny.base, spec("a red fox"))[0])


def test_without_guidance_the_negative_prompt_lengthens_nothing(tiny):
    one = spec("a red fox", negative_prompt=LONG, guidance_scale=1.0, refiner={"guidance_scale": 5})
    assert num_chunks(tiny, one) == (1, 3)
    assert embedded(tiny.base, one)[0].shape[1] == 77
    assert embedded(tiny.refiner, one)[0].shape[1] == 3 * 77


@pytest.mark.parametrize(
    "prompt",
    [
        "a (red)++ fox",
        "a (red)0.4 fox in the (snow)--",
        '("a fox", "a wolf").blend(0.7, 0.3)',
        '("a fox", "the moon").and()',
        f"(red)- {LONG}",
    ],
)
def test_compel_syntax_is_compels(tiny, diffusers_pair, prompt):
    one = spec(prompt, negative_prompt="(blurry)+", prompt_syntax="compel")
    assert equal(embedded(tiny.base, one), by_compel(diffusers_pair[0], one)) == [True] * 4
    assert not torch.equal(embedded(tiny.base, one)[0][:, :77], embedded(tiny.base, spec(prompt))[0][:, :77])


def test_the_refiner_has_a_compel_of_its_own(tiny, diffusers_pair):
    compel = Compel(
        tokenizer=diffusers_pair[1].tokenizer_2,
        text_encoder=diffusers_pair[1].text_encoder_2,
        returned_embeddings_type=ReturnedEmbeddingsType.PENULTIMATE_HIDDEN_STATES_NON_NORMALIZED,
        requires_pooled=True,
        truncate_long_prompts=False,
    )
    with torch.inference_mode():
        hidden, pooled = compel("a (red)++ fox")
    found = embedded(tiny.refiner, spec("a (red)++ fox", prompt_syntax="compel"))
    assert torch.equal(found[0], hidden)
    assert torch.equal(found[2], pooled)


@pytest.mark.parametrize("syntax", ["plain", "compel"])
@pytest.mark.parametrize(
    "prompt",
    [
        "a fox",
        LONG,
        "word " * 75,
        "word " * 76,
        f"(red)- {LONG}",
        f'("{LONG}", "a fox").blend(1, 1)',
        f'("{LONG}", "a fox").and()',
        "( a",
        "a (b)0.5" * 40,
    ],
)
def test_the_count_is_the_length_of_the_embedding(tiny, syntax, prompt):
    one = spec(prompt, prompt_syntax=syntax)
    for pipe, chunks in zip((tiny.base, tiny.refiner), num_chunks(tiny, one), strict=True):
        assert embedded(pipe, one)[0].shape[1] == 77 * chunks


def test_75_words_are_one_chunk_and_76_are_two(tiny):
    assert [num_chunks(tiny, spec("fox " * number)) for number in (75, 76)] == [(1, 1), (2, 2)]
    assert num_chunks(tiny, spec("fox", negative_prompt="fox " * 76)) == (2, 2)


def test_each_side_counts_what_it_reads(tiny):
    long = "fox " * 76
    assert num_chunks(tiny, spec("fox", prompt_2=long)) == (2, 1)
    assert num_chunks(tiny, spec("fox", refiner={"prompt": long})) == (1, 2)
    assert num_chunks(tiny, spec(long, refiner={"mode": "off"})) == (2, 0)
    assert num_chunks(tiny, spec(long, init_image="0" * 64, refiner={"mode": "only"})) == (0, 2)


def test_counting_never_touches_a_tokenizer_that_the_device_thread_uses(tiny):
    """Shared by two threads, a tokenizer sometimes cuts the text of one as the other asked for it, and says nothing."""
    pipelines = (tiny.base.tokenizer, tiny.base.tokenizer_2)
    for tokenizer in pipelines:
        tokenizer("a fox", padding="max_length", truncation=True, max_length=77)
    assert num_chunks(tiny, spec(LONG)) == (3, 3)
    assert [tokenizer.backend_tokenizer.truncation is None for tokenizer in pipelines] == [False, False]
    assert [tokenizer.backend_tokenizer.truncation for tokenizer in tiny.counting_tokenizers] == [None, None]


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        ("()", "no text"),
        ("a cat.swap(dog)", "character 6: .*swap"),
        ('("a fox", "a wolf.swap(cat)").blend(1, 1)', "character 30: .* cannot read"),
        ('("a fox", "a wolf").blend(1, 1).and()', "character 32: .* reads no further"),
        ('("a", "b.blend").blend(1)', r"character 17: .* .blend\(\) and .and\(\) have as many weights as parts"),
        ('("a", "b").blend(x, 1)', "character 11: .* are numbers; could not convert string to float: 'x'"),
        ('("a", "b").blend(1, nan)', "character 11: .* are finite numbers"),
        ('("a fox", "a wolf").and(1, 0.5)', "cannot weigh"),
        ("(" * 400, "nested deeper"),
    ],
)
def test_compel_syntax_that_cannot_be_rendered_is_refused_before_the_device(tiny, prompt, reason):
    with pytest.raises(SpecError, match=reason):
        num_chunks(tiny, spec(prompt, prompt_syntax="compel"))
    assert min(num_chunks(tiny, spec(prompt))) >= 1  # as plain text it is text


@pytest.mark.parametrize(
    ("prompt", "where"),
    [
        ('("a","b").blend(1,1) tail', 'character 22: \'("a","b").blend(1,1) tail\''),
        ('("a,b\tc",\n"d").blend(1,1)\n \t tail', 'line 3, character 4: \'...b\\tc",\\n"d").blend(1,1)\\n \\t tail\''),
        ('("' + "a,b " * 300 + '", "c").blend() tail', 'character 1219: \'... a,b a,b ", "c").blend() tail\''),
        (
            '("a", "b").blend() ' + "tail " * 40,
            'character 20: \'("a", "b").blend() tail tail tail tail tail tail tail ...\'',
        ),
    ],
)
def test_a_refusal_of_compel_syntax_says_where_in_the_prompt_as_it_was_written(tiny, prompt, where):
    with pytest.raises(SpecError) as refused:
        num_chunks(tiny, spec(prompt, prompt_syntax="compel"))
    assert str(refused.value) == (
        f"prompt in compel syntax, {where}: compel reads no further than this; .blend(...) ends a prompt"
    )


@pytest.mark.parametrize(
    "prompt",
    [
        "(a fox",
        "a fox)",
        "((a fox)",
        '"a fox',
        '("a", "b").blend(1, 1',
        '("a", "b").and(',
        "a fox.swap(",
        "[a fox]",
        "a\\",
    ],
)
def test_what_is_left_open_is_text_to_compel(tiny, prompt):
    assert [part.text for part in Compel.parse_prompt_string(prompt).prompts[0].children] != []
    assert num_chunks(tiny, spec(prompt, prompt_syntax="compel")) == (1, 1)


def test_open_parentheses_do_not_stop_the_worker(tiny):
    started = time.monotonic()
    assert num_chunks(tiny, spec("(" * 7 + "fox", prompt_syntax="compel")) == (1, 1)
    assert time.monotonic() - started < 2  # without packrat parsing 6, and 4 times that for each one more


def test_prompts_of_a_pass_are_stacked_in_their_order(tiny):
    specs = [spec("a fox"), spec("a wolf", negative_prompt="dark"), spec("a fox")]
    with torch.inference_mode():
        embeds = [embed(tiny.base, base_prompts(one), RememberedTexts()) for one in specs]
        arguments = stacked(embeds)
    assert set(arguments) == set(NAMES)
    assert torch.equal(arguments["prompt_embeds"][0], arguments["prompt_embeds"][2])
    assert torch.equal(arguments["negative_pooled_prompt_embeds"][1:2], embeds[1].negative_pooled_prompt_embeds)
