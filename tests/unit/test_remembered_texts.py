"""Each text is encoded once, for base and refiner together, and remembering it changes no bit."""

from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch

from schemas.spec import JobSpec
from tests.unit.lora_files import lora_of, write_peft
from worker.loading.loras import set_adapters
from worker.passes.conditioning import base_conditioning, refiner_conditioning
from worker.passes.denoising import denoise
from worker.passes.remembered_texts import EncodedText, RememberedTexts, TextKey

LONG = "a red fox in the snow, with long whiskers and a bushy tail. it looks at the moon; the trees are dark. " * 5
TEXTS = [
    {"prompt": "a red fox", "negative_prompt": "blurry"},
    {"prompt": "a red fox", "prompt_2": "ink"},
    {"prompt": LONG, "negative_prompt": "blurry"},
    {"prompt": "a red fox", "clip_skip": 1},
    {"prompt": "a (red)++ fox in the (snow)0.4", "negative_prompt": "(dark)+", "prompt_syntax": "compel"},
    {"prompt": '("a fox", "a wolf").blend(0.7, 0.3)', "prompt_syntax": "compel"},
]


def spec(**fields):
    return JobSpec.parse(
        {"prompt": "a red fox", "width": 64, "height": 64, "num_inference_steps": 2, "seed": 7,
         "refiner": {"start_step": 1}} | fields
    )  # fmt: skip


def remembering(pair, most_bytes=2**28):
    return replace(pair, texts=RememberedTexts(most_bytes))


def latents_of(pair, *specs):
    return denoise(pair, specs, lambda: False).latents


def told_to_both(pair, one):
    with torch.inference_mode():
        both = base_conditioning(pair, [one]), refiner_conditioning(pair, [one])
    return [told.hidden_states for told in both] + [told.pooled for told in both]


@contextmanager
def counted(*networks):
    """How often each network is run while inside, and with how many rows."""
    calls = [[] for _ in networks]

    def noting(seen):
        return lambda _, positional, named: seen.append(len([*positional, *named.values()][0]))

    both = zip(networks, calls, strict=True)
    hooks = [network.register_forward_pre_hook(noting(seen), with_kwargs=True) for network, seen in both]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def test_a_prompt_with_eight_seeds_is_encoded_once_for_base_and_refiner(smallest):
    pair = remembering(smallest)
    with counted(pair.base.text_encoder, pair.base.text_encoder_2) as calls:
        for seed in range(8):
            told_to_both(pair, spec(seed=seed))
    # and the negative prompt that nobody gave, which is zeros for the base and the empty text for the refiner
    assert calls == [[1], [1, 1]]


def test_eight_prompts_that_share_a_negative_one_are_encoded_once_each(smallest):
    pair = remembering(smallest)
    with counted(pair.base.text_encoder, pair.base.text_encoder_2) as calls:
        for number in range(8):
            told_to_both(pair, spec(prompt=f"fox {number}", negative_prompt="blurry"))
    assert calls == [[1] * 9, [1] * 9]


def test_what_compel_makes_of_a_prompt_is_shared_too(smallest):
    pair, one = remembering(smallest), spec(prompt="a (red)++ fox", prompt_syntax="compel", negative_prompt="dark")
    with counted(pair.base.text_encoder_2) as once:
        told_to_both(pair, one)
    with counted(pair.base.text_encoder_2) as again:
        told_to_both(pair, one)
    with counted(smallest.base.text_encoder_2) as nothing_kept:
        told_to_both(remembering(smallest, 0), one)
    assert (len(nothing_kept[0]), len(again[0])) == (2 * len(once[0]), 0)


@pytest.mark.parametrize("fields", TEXTS, ids=lambda fields: fields["prompt"][:20])
def test_remembering_changes_no_bit(smallest, fields):
    pair, one = remembering(smallest), spec(**fields)
    told, other = told_to_both(remembering(smallest, 0), one), told_to_both(pair, spec(prompt="something else"))
    for _ in range(2):
        assert all(map(torch.equal, told_to_both(pair, one), told))
    assert not any(map(torch.equal, other[:2], told[:2]))


def test_what_was_encoded_with_a_lora_is_nobody_elses(tiny, tmp_path):
    write_peft(tmp_path / "encoder_2.safetensors", tiny.base, ("text_encoder_2",), seed=5)
    pair, lora = remembering(tiny), lora_of(tmp_path / "encoder_2.safetensors", 1.0)
    files = {lora.sha256: tmp_path / "encoder_2.safetensors"}
    try:
        seen = []
        for loras in ([], [lora], [], [lora.model_copy(update={"weight": 0.5})], [lora]):
            set_adapters(pair, loras, files)
            seen.append(told_to_both(pair, spec()))
    finally:
        pair.base.unload_lora_weights()
    assert all(map(torch.equal, seen[0], seen[2]))
    assert all(map(torch.equal, seen[1], seen[4]))
    base = [hidden for hidden, *_ in seen]
    assert not any(torch.equal(base[left], base[right]) for left, right in ((0, 1), (0, 3), (1, 3)))
    assert all(torch.equal(refiner, seen[0][1]) for _, refiner, *_ in seen)  # the LoRAs are the base's


def key(text):
    return TextKey("text_encoder", text, "plain", -2, frozenset())


def encoded(num_bytes):
    return EncodedText(torch.zeros(1, 1, num_bytes // 4), None)


def asked(texts, *names, num_bytes=100):
    """Those of the names that had to be encoded."""
    made = []
    for name in names:
        texts.recall(key(name), lambda name=name: made.append(name) or encoded(num_bytes))
    return made


def test_the_text_that_nobody_asked_for_longest_is_forgotten_first():
    texts = RememberedTexts(most_bytes=300)
    assert asked(texts, "a", "b", "c", "a", "d") == ["a", "b", "c", "d"]
    assert asked(texts, "c", "a", "d", "b") == ["b"]
    assert (len(texts), texts.size_bytes) == (3, 300)


def test_the_memory_behind_the_tensors_is_what_counts():
    texts, large = RememberedTexts(most_bytes=1000), torch.zeros(1, 1000)
    texts.recall(key("a view"), lambda: EncodedText(large[:, :1], None))
    assert (len(texts), texts.size_bytes) == (0, 0)
    texts.recall(key("its own"), lambda: EncodedText(large[:, :1].clone(), torch.zeros(1, 2)))
    assert (len(texts), texts.size_bytes) == (1, 12)


@pytest.mark.parametrize(
    ("fields", "base_rows", "refiner_rows"),
    [
        ({}, 4, 4),
        ({"guidance_scale": 1.0}, 2, 2),
        ({"guidance_scale": 0.5}, 2, 2),
        ({"guidance_scale": 1.0, "refiner": {"start_step": 1, "guidance_scale": 3}}, 2, 4),
        ({"refiner": {"start_step": 1, "guidance_scale": 1}}, 4, 2),
    ],
)
def test_both_halves_of_guidance_share_a_forward_pass_and_without_it_there_is_one_half(
    smallest, fields, base_rows, refiner_rows
):
    with counted(smallest.base.unet, smallest.refiner.unet) as calls:
        latents_of(smallest, *(spec(**fields, num_inference_steps=4, seed=seed) for seed in (1, 2)))
    assert calls == [[base_rows], [refiner_rows] * 3]
