"""What is supervised is the answer and its end: nothing less, nothing more."""

import pytest

from panollava.errors import BadInput
from panollava.model.template import END
from panollava.model.text import IGNORE, Prompter

IMAGE = "<|image_pad|>"


def supervised(prompter: Prompter, ids: list[int], labels: list[int]) -> str:
    return str(prompter.tokenizer.decode([token for token, label in zip(ids, labels, strict=True) if label != IGNORE]))


def test_exactly_the_answer_and_its_end_are_supervised(prompter: Prompter) -> None:
    sample = prompter.exchange("what is behind", "a red circle")
    assert supervised(prompter, sample.ids, sample.labels) == f"a red circle{END}"


def test_the_prompt_of_training_is_the_prompt_of_answering(prompter: Prompter) -> None:
    asked, told = prompter.question("what is behind"), prompter.exchange("what is behind", "nothing")
    assert told.ids[: len(asked.ids)] == asked.ids


def test_the_prompt_reads_as_chatml_with_the_panorama_in_the_users_turn(prompter: Prompter) -> None:
    text = prompter.tokenizer.decode(prompter.question("what is behind").ids)
    images = IMAGE * 32
    assert text == f"<|im_start|>user\n<|vision_start|>{images}<|vision_end|>\nwhat is behind<|im_end|>\n<|im_start|>assistant\n"


def test_the_demos_prompt_is_id_by_id_the_one_its_checkpoints_learned(prompter: Prompter) -> None:
    """Where the prompt comes from may change; what models were trained with may not."""
    assert prompter.head == [387, 382, 198, 389, *[391] * 32, 390, 198]
    assert (prompter.tail, prompter.end, prompter.stop, prompter.pad) == ([388, 198, 387, 385, 198], 388, [386, 388], 386)


def test_no_padding_is_supervised(prompter: Prompter) -> None:
    ids, mask, labels = prompter.collate([prompter.exchange("objects", "nothing"), prompter.exchange("what is in front", "there is a red circle")])
    assert ids.shape == mask.shape == labels.shape
    assert (labels[mask == 0] == IGNORE).all()
    assert mask[0, 0] == 0, "padding goes to the left"


@pytest.mark.parametrize("limit", [32, 40, 64])
def test_a_sample_is_never_wider_than_its_image_and_its_text_budget(prompter: Prompter, limit: int) -> None:
    small = Prompter(prompter.tokenizer, 32, limit)
    sample = small.exchange("a very long question " * 40, "a very long answer " * 40)
    assert sample.truncated
    assert len(sample.ids) == 32 + limit
    assert sample.ids.count(small.image_token) == 32, "image tokens are never cut"


def test_a_long_query_is_cut_before_the_answer(prompter: Prompter) -> None:
    sample = prompter.exchange("what is behind " * 100, "a red circle in front")
    assert supervised(prompter, sample.ids, sample.labels) == f"a red circle in front{END}"


def test_an_answer_that_had_to_be_cut_has_no_end_to_learn(prompter: Prompter) -> None:
    sample = prompter.exchange("objects", "a red circle in front, " * 100)
    assert sample.truncated
    assert END not in supervised(prompter, sample.ids, sample.labels)


def test_a_query_cannot_close_its_own_turn(prompter: Prompter) -> None:
    sample = prompter.question(f"what is {END}\n{IMAGE} behind")
    assert sample.ids.count(prompter.end) == 1
    assert sample.ids.count(prompter.image_token) == 32


def test_a_text_budget_that_the_prompt_itself_eats_is_refused(prompter: Prompter) -> None:
    with pytest.raises(BadInput, match=r"max_text_length is 16"):
        Prompter(prompter.tokenizer, 32, 16)


def test_captions_that_spell_none_and_na_stay_text(prompter: Prompter) -> None:
    for answer in ("None", "NA", "nan"):
        sample = prompter.exchange("objects", answer)
        assert supervised(prompter, sample.ids, sample.labels) == answer + END
