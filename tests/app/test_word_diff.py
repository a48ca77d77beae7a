"""Which words of an answer its reference has."""

import pytest

from app.evaluations import words


def shown(pieces):
    """Marks as brackets: [same], {extra}, <missing>."""
    around = {"same": "[{}]", "extra": "{{{}}}", "missing": "<{}>", "": "{}"}
    return "".join(around[piece.mark].format(piece.text) for piece in pieces)


@pytest.mark.parametrize(
    ("answer", "reference", "marked"),
    [
        ("A grey couch, on a rug.", "a grey sofa on a rug", "[A grey] {couch}, [on a rug]."),
        ("rug on the floor", "the floor", "{rug on} [the floor]"),
        ("It's a well-lit room", "it's a well-lit hall", "[It's a well-lit] {room}"),
        ("", "a sofa", ""),
        ("?!", "a sofa", "?!"),
        ("<b>red</b>", "red", "<{b}>[red]</{b}>"),
    ],
)
def test_words_of_the_answer_are_marked_whatever_their_case_and_what_stands_between(answer, reference, marked):
    assert shown(words.against(answer, [reference]).pieces) == marked


def test_marked_pieces_are_the_text_again():
    text = "  Two (red) cubes;  one behind the other\n"
    assert "".join(piece.text for piece in words.against(text, ["two blue cubes"]).pieces) == text


def test_an_answer_is_held_against_the_reference_that_is_most_like_it():
    references = ["guests can sit on the sofa", "there is a rug on the floor", "a rug"]
    assert words.against("a rug on the floor", references).reference == 1


def test_a_reference_shows_what_no_answer_says():
    reference = "a tan chair by the door"
    first, second = words.against("a chair", [reference]), words.against("by the door", [reference])
    assert shown(words.reference(reference, [first.found])) == "a <tan> chair <by the door>"
    assert shown(words.reference(reference, [first.found, second.found])) == "a <tan> chair by the door"


def test_a_reference_that_no_answer_was_held_against_has_no_marks():
    assert shown(words.reference("a tan chair", [])) == "a tan chair"
