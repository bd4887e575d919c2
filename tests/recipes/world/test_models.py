"""The vocabulary that the models are trained with."""

from transformers import CLIPTokenizer

from diffalign.world import WORLD_FOLDER
from recipes.world.models import MAX_TOKENS, WORDS, build_tokenizer


def test_the_shipped_vocabulary_is_what_any_process_builds() -> None:
    shipped = CLIPTokenizer.from_pretrained(WORLD_FOLDER / "tokenizer")
    assert shipped.get_vocab() == build_tokenizer().get_vocab()
    assert shipped("a red car").input_ids == build_tokenizer()("a red car").input_ids


def test_every_word_is_one_token_and_the_longest_caption_fits() -> None:
    tokenizer = build_tokenizer()
    assert [word for word in WORDS if len(tokenizer.tokenize(word)) != 1] == []
    longest = "a purple flower on the left of a yellow rabbit on the street"
    assert len(tokenizer(longest).input_ids) <= MAX_TOKENS
