import json
from dataclasses import replace

import numpy as np
import pytest

from diffalign.prompts import (
    Prompt,
    PromptFileError,
    UnknownPromptSetError,
    list_prompt_sets,
    load_prompts,
)
from diffalign.world.grammar import parse
from diffalign.world.scenes import sample_scene
from recipes.world.data import CLIPS, LONG_TAIL, sample_clip

ASPECTS = ("color", "composition", "count", "location")
SIZES = {
    "b2/template1-test": 90,
    "b2/template1-train": 45,
    "b2/template2-test": 40,
    "b2/template2-train": 40,
    "b2/template3-test": 30,
    "b2/template3-train": 40,
    "drawbench": 200,
    "find/ablation": 2,
    "find/aspects": 4,
    "find/complex": 12,
    "find/custom": 3,
    "find/reward-curve": 1,
    "find/video": 4,
    "geneval": 553,
    "world/common": 24,
    "world/fresh": 64,
    "world/heldout": 16,
    "world/many": 480,
    "world/unusual": 24,
    "world/video": 8,
    "world/video-common": 8,
}
WORLD = [name for name in SIZES if name.startswith("world/")]
VIDEO = [name for name in WORLD if "video" in name]


def test_sets_are_listed_with_their_sizes():
    assert {name: len(load_prompts(name)) for name in list_prompt_sets()} == SIZES


@pytest.mark.parametrize("name", SIZES)
def test_a_set_says_what_it_is_and_repeats_nothing(name):
    prompts = load_prompts(name)
    assert prompts.name == name
    assert prompts.source
    assert prompts.description and "\n" not in prompts.description
    assert len(set(prompts.texts)) == len(prompts)
    assert all(text == text.strip() != "" for text in prompts.texts)


@pytest.mark.parametrize(("name", "each"), [("world/unusual", 6), ("world/heldout", 4), ("find/aspects", 1)])
def test_aspects_are_balanced(name, each):
    aspects = [prompt.aspect for prompt in load_prompts(name).prompts]
    assert {aspect: aspects.count(aspect) for aspect in aspects} == dict.fromkeys(ASPECTS, each)


@pytest.mark.parametrize("name", WORLD)
def test_the_world_reads_its_prompts(name):
    for prompt in load_prompts(name).prompts:
        request = parse(prompt.text, video=name in VIDEO)
        assert (request.motion is not None) == (name in VIDEO)
        if prompt.aspect == "count":
            assert request.groups[0].count > 1
        if prompt.aspect == "composition":
            assert len(request.groups) == 2
        if prompt.aspect == "location":
            assert request.background is not None
        if prompt.aspect == "color":
            assert request.groups[0].tint or request.groups[0].natural


def test_world_sets_share_no_prompt():
    assert load_prompts("world/many").texts[:24] == load_prompts("world/unusual").texts
    texts = [text for name in WORLD if name != "world/unusual" for text in load_prompts(name).texts]
    assert len(set(texts)) == len(texts)


def test_common_prompts_are_frequent_and_the_others_rare_in_the_long_tail():
    rng = np.random.default_rng(0)
    scenes = [sample_scene(rng, LONG_TAIL) for _ in range(6000)]

    def frequency(text):
        request = parse(text)
        return sum(all(request.check(scene)) for scene in scenes) / len(scenes)

    assert min(map(frequency, load_prompts("world/common").texts)) > 0.005
    for name in ("world/unusual", "world/heldout"):
        assert max(map(frequency, load_prompts(name).texts)) < 0.005


def test_common_videos_are_frequent_and_the_others_rare_in_the_training_data():
    rng = np.random.default_rng(0)
    clips = [sample_clip(rng, CLIPS) for _ in range(6000)]

    def frequency(text):
        request = parse(text, video=True)
        said = replace(request, motion=None)
        return sum(clip.motion == request.motion and all(said.check(clip.scene)) for clip in clips) / len(
            clips
        )

    assert min(map(frequency, load_prompts("world/video-common").texts)) > 0.005
    assert max(map(frequency, load_prompts("world/video").texts)) < 0.002


def test_published_sets_keep_their_aspects():
    assert load_prompts("geneval").prompts[0] == Prompt("a photo of a bench", "single_object")
    assert load_prompts("drawbench").prompts[0] == Prompt("A red colored car.", "Colors")
    assert "four pandas" in [text.lower() for text in load_prompts("find/aspects").texts]


def test_a_mistyped_name_is_answered_with_the_nearest():
    with pytest.raises(UnknownPromptSetError) as error:
        load_prompts("wrld/common")
    assert str(error.value).startswith("unknown prompt set 'wrld/common'; choose one of: b2/template1-test, ")
    assert str(error.value).endswith(" (did you mean 'world/common'?)")
    assert isinstance(error.value, ValueError)


def test_a_name_near_nothing_gets_no_hint():
    with pytest.raises(UnknownPromptSetError) as error:
        load_prompts("zzzzzz")
    assert "did you mean" not in str(error.value)


def test_files_of_prompts(tmp_path):
    lines = tmp_path / "mine.txt"
    lines.write_text("a green dog\n  four pandas \n\n")
    assert load_prompts(lines).texts == ("a green dog", "four pandas")
    assert load_prompts(str(lines)).name == "mine"
    mixed = tmp_path / "mine.json"
    mixed.write_text(json.dumps(["a dog", {"text": "two cats", "aspect": "count"}]))
    assert load_prompts(mixed).prompts == (Prompt("a dog"), Prompt("two cats", "count"))


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("a.txt", "", "no prompts"),
        ("a.txt", "a dog\n\na cat\n", "prompt 2 is empty"),
        ("a.json", "[]", "no prompts"),
        ("a.json", '["a dog", "  "]', "prompt 2 is empty"),
        ("a.json", '["a dog", 3]', "prompt 2 is 3"),
        ("a.json", '[{"txt": "a dog"}]', "prompt 1 is"),
        ("a.json", '{"a": 1}', "is a list, not dict"),
        ("a.json", "a dog", "not JSON"),
        ("a.txt", b"\xff\xfe\xff", "not UTF-8"),
    ],
)
def test_a_broken_file_says_what_is_wrong_with_it(tmp_path, file, content, message):
    path = tmp_path / file
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(PromptFileError, match=message):
        load_prompts(path)


def test_a_missing_file_is_said_to_be_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="no prompt file"):
        load_prompts(tmp_path / "none.txt")


def test_a_set_is_a_sequence_of_its_texts() -> None:
    found = load_prompts("world/unusual")
    assert tuple(found) == found.texts
    assert (found[0], found[1:3], found[-1] in found) == (found.texts[0], found.texts[1:3], True)
    assert repr(found) == f"PromptSet('world/unusual', 24 prompts: {found[0]!r} …)"
