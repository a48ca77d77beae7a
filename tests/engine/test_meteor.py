"""METEOR of exact words and stems: against nltk, and against METEOR 1.5's own program where there is a Java."""

import shutil
import subprocess
from pathlib import Path

import pycocoevalcap
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.stem import PorterStemmer
from nltk.translate.meteor_score import meteor_score

from panollava.metrics.meteor import aligned, meteor, stem

WORDS = ["door", "doors", "open", "opening", "opened", "a", "the", "wooden", "walk", "walks", "walking", "room"]


class NoSynonyms:
    """Stands where nltk wants WordNet, and knows no word."""

    def synsets(self, word: str) -> list[str]:
        return []


class OurStems:
    """nltk's own Porter has extensions; its alignment is what is asked here."""

    def stem(self, word: str) -> str:
        return stem(word)


def sentence(min_size: int) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(WORDS), min_size=min_size, max_size=12)


@settings(max_examples=200, deadline=None)
@given(sentence(0), st.lists(sentence(1), min_size=1, max_size=3))
def test_values_are_nltks_without_synonyms(said: list[str], references: list[list[str]]) -> None:
    theirs = meteor_score(references, said, stemmer=OurStems(), wordnet=NoSynonyms())
    assert meteor(said, references) == pytest.approx(theirs, rel=0, abs=1e-12)


def test_stems_are_porters() -> None:
    porter = PorterStemmer(mode=PorterStemmer.ORIGINAL_ALGORITHM)
    words = "wooden doors opening relational conditionally happily houses ceilings pictures standing lamp flies agreed sized national yes"
    assert [stem(word) for word in words.split()] == [porter.stem(word) for word in words.split()]


def test_a_perfect_answer_scores_a_little_below_one_and_nothing_in_common_scores_zero() -> None:
    assert meteor(["a", "red", "door"], [["a", "red", "door"]]) == pytest.approx(1 - 0.5 / 27)
    assert meteor([], [["a"]]) == meteor(["b"], [["a"], []]) == 0


def test_a_word_of_the_same_stem_counts_and_each_word_only_once() -> None:
    assert aligned(["doors", "opened"], ["opening", "door"]) == [(0, 1), (1, 0)]
    assert aligned(["door", "door"], ["door"]) == [(1, 0)]
    assert aligned(["doors", "door"], ["door"]) == [(1, 0)]  # the exact one first


@pytest.mark.skipif(shutil.which("java") is None, reason="needs a Java to run METEOR 1.5")
def test_values_are_those_of_meteor_1_5_told_to_do_the_same(tmp_path: Path) -> None:
    """All but a perfect answer, which METEOR 1.5 gives 1."""
    said = ["the red doors opened wide", "a wooden room", "walk in the red room", "nothing here"]
    wanted = ["the red door opens", "the wooden room", "in the red room we walk", "a door"]
    for name, lines in (("said", said), ("wanted", wanted)):
        (tmp_path / name).write_text("\n".join(lines) + "\n")
    jar = Path(pycocoevalcap.__path__[0]) / "meteor" / "meteor-1.5.jar"
    told = ["-m", "exact stem", "-w", "1.0 1.0", "-p", "0.9 3.0 0.5 0.5", "-l", "en"]
    command: list[str | Path] = ["java", "-jar", jar, tmp_path / "said", tmp_path / "wanted", *told]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    theirs = [float(line.split()[-1]) for line in printed.splitlines() if line.startswith("Segment ")]
    assert [meteor(one.split(), [other.split()]) for one, other in zip(said, wanted, strict=True)] == pytest.approx(theirs, abs=1e-9)
