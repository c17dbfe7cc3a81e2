"""Captions of generated scenes: their length, language and truth."""

import re
from collections.abc import Sequence

import numpy as np
import py3langid
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from components.data.describe.embedded import EmbeddedDescriber
from components.data.describe.embedded.colours import NAMES
from components.data.describe.embedded.measure import measure_scene
from components.data.describe.scenes import (
    Description,
    Outcome,
    Region,
    Rejection,
    Scene,
    WordLimits,
)
from pixclip.masks import Mask, encode_mask

WIDTH, HEIGHT = 200, 150
LIMITS = WordLimits(30, 120, 2, 20)
PAINTS = {
    "red": (200, 25, 25),
    "green": (40, 160, 50),
    "blue": (40, 80, 220),
    "yellow": (250, 220, 40),
    "white": (250, 250, 250),
    "black": (8, 8, 8),
    "grey": (128, 128, 128),
    "brown": (110, 65, 30),
}
PHRASES = ["a dog", "the old house", "two boats", "people", "Mickey Mouse", "some bread", "his hat"]


def disc(x: float, y: float, radius: float) -> Mask:
    """A round mask."""
    ys, xs = np.mgrid[:HEIGHT, :WIDTH]
    return np.asarray((xs + 0.5 - x) ** 2 + (ys + 0.5 - y) ** 2 <= radius**2)


def scene(
    things: Sequence[tuple[str, str, Mask]], background: str = "green", caption: str = ""
) -> Scene:
    """Flat things (phrase, paint, mask) on a flat background."""
    pixels = np.full((HEIGHT, WIDTH, 3), PAINTS[background], dtype=np.uint8)
    for _, paint, mask in things:
        pixels[mask] = PAINTS[paint]
    regions = tuple(
        Region(
            f"7-{index:02d}",
            "0" * 64,
            WIDTH,
            HEIGHT,
            (0, 0, 1, 1),
            phrase,
            caption,
            encode_mask(mask),
        )
        for index, (phrase, _, mask) in enumerate(things)
    )
    return Scene("0" * 64, Image.fromarray(pixels), regions)


def describe(given_scene: Scene, limits: WordLimits = LIMITS) -> Sequence[Outcome]:
    return EmbeddedDescriber(limits).describe(given_scene)


def described(given_scene: Scene, limits: WordLimits = LIMITS) -> list[Description]:
    outcomes = describe(given_scene, limits)
    assert all(isinstance(outcome, Description) for outcome in outcomes), outcomes
    return [outcome for outcome in outcomes if isinstance(outcome, Description)]


@st.composite
def scenes(draw: st.DrawFn) -> Scene:
    """Scenes of one to five flat discs that are large enough to measure."""
    things = []
    for _ in range(draw(st.integers(1, 5))):
        radius = draw(st.floats(6, 50))
        x, y = draw(st.floats(0, WIDTH)), draw(st.floats(0, HEIGHT))
        paint = draw(st.sampled_from(sorted(PAINTS)))
        things.append((draw(st.sampled_from(PHRASES)), paint, disc(x, y, radius)))
    return scene([t for t in things if t[2].sum() >= 64] or [("a dog", "red", disc(50, 50, 20))])


@settings(deadline=None, max_examples=80)
@given(scenes())
def test_captions_have_the_lengths_asked_for(generated):
    for description in described(generated):
        assert 30 <= len(description.long_caption.split()) <= 60
        assert 2 <= len(description.short_caption.split()) <= 12
        assert len(description.object_caption.split()) >= 8
        assert len(description.context_caption.split()) >= 8


@settings(deadline=None, max_examples=80)
@given(scenes())
def test_captions_name_no_colour_that_was_not_measured(generated):
    measured = measure_scene(generated)
    for description, measures in zip(described(generated), measured, strict=True):
        assert measures is not None
        inside = {colour.name for colour in measures.colours}
        around = {colour.name for colour in measures.surroundings}
        assert set(re.findall(r"[a-z]+", description.object_caption)) & set(NAMES) == inside
        assert set(re.findall(r"[a-z]+", description.long_caption)) & set(NAMES) <= inside | around


@settings(deadline=None, max_examples=30)
@given(scenes())
def test_captions_are_whole_english_sentences(generated):
    for description in described(generated):
        for text in (
            description.object_caption,
            description.context_caption,
            description.long_caption,
        ):
            assert text[0].isupper()
            assert text.endswith(".")
            assert "  " not in text
            assert py3langid.classify(text)[0] == "en", text


@settings(deadline=None, max_examples=40)
@given(scenes())
def test_the_same_scene_gives_the_same_captions(generated):
    assert describe(generated) == describe(generated)


def test_captions_differ_from_region_to_region():
    rng = np.random.default_rng(0)
    texts = []
    for number in range(40):
        things = [
            (
                "a dog",
                str(rng.choice(sorted(PAINTS))),
                disc(*rng.uniform(30, 120, 2), rng.uniform(8, 40)),
            )
            for _ in range(3)
        ]
        for index, description in enumerate(
            described(scene([t for t in things if t[2].sum() > 64]))
        ):
            texts.append((f"{number}-{index}", description.long_caption))
    assert len({text for _, text in texts}) > 0.95 * len(texts)


def test_what_is_measured_is_told():
    things = [("a ball", "red", disc(40, 110, 20)), ("a kite", "yellow", disc(150, 30, 12))]
    ball, kite = described(scene(things))
    for text in (ball.object_caption, ball.long_caption, ball.short_caption):
        assert "red" in text
        assert "yellow" not in text
    assert "in the lower left" in ball.long_caption
    assert "below and to the left of a kite" in ball.long_caption
    assert "above and to the right of a ball" in kite.context_caption
    assert "larger than the kite" in ball.context_caption
    assert "smaller than the ball" in kite.context_caption
    assert "about 4 percent" in ball.context_caption
    assert "green surroundings" in ball.context_caption


def test_a_mirrored_scene_is_described_mirrored():
    things = [
        ("a ball", "red", disc(40, 110, 20)),
        ("a kite", "yellow", disc(150, 30, 12)),
        ("a dog", "black", disc(120, 80, 25)),
    ]
    mirrored = [
        (phrase, paint, np.ascontiguousarray(mask[:, ::-1])) for phrase, paint, mask in things
    ]
    swapped = {"left": "right", "right": "left", "leftmost": "rightmost", "rightmost": "leftmost"}
    for one, other in zip(described(scene(things)), described(scene(mirrored)), strict=True):
        words = re.split(r"(\W+)", one.long_caption)
        assert "".join(swapped.get(word, word) for word in words) == other.long_caption


def test_the_rows_say_that_rules_made_them():
    (description,) = described(scene([("a dog", "red", disc(60, 60, 30))]))
    assert set(description.provenance) == {"object", "verify", "context", "merge", "check"}
    for source in description.provenance.values():
        assert (source.describer, source.model) == ("embedded-rules", "rules-v1")
        assert (source.prompt, source.request_hash) == ("", "")
    assert description.usage.num_requests == 0


@pytest.mark.parametrize(
    ("phrase", "paint", "mask", "reason", "detail"),
    [
        ("a red ball", "blue", disc(60, 60, 30), "rejected_inconsistent", "says red"),
        ("a white dog", "black", disc(60, 60, 30), "rejected_inconsistent", "says white"),
        ("a ball", "red", disc(60, 60, 2), "rejected_uncertain", "too small"),
        ("a ball", "red", np.zeros((HEIGHT, WIDTH), bool), "rejected_uncertain", "0 pixels"),
        ("<br> ...", "red", disc(60, 60, 30), "rejected_uncertain", "no words"),
        ("красный мяч", "red", disc(60, 60, 30), "rejected_language", "not Latin"),
        ("a ball " * 9, "red", disc(60, 60, 30), "rejected_uncertain", "18 words"),
    ],
)
def test_a_phrase_that_the_image_refutes_is_rejected(phrase, paint, mask, reason, detail):
    (outcome,) = describe(scene([(phrase, paint, mask)], background="grey"))
    assert isinstance(outcome, Rejection)
    assert (outcome.stage, outcome.reason) == ("verify", reason)
    assert detail in outcome.detail


def test_a_colour_that_is_there_is_confirmed():
    (description,) = described(scene([("a red ball", "red", disc(60, 60, 30))]))
    assert description.verdict == "accepted"
    assert "red 100%" in description.verdict_reason


def test_a_rejected_neighbour_still_counts_as_a_neighbour():
    things = [("a dog", "red", disc(60, 60, 20)), ("a green ball", "red", disc(150, 60, 20))]
    dog, ball = describe(scene(things, background="grey"))
    assert isinstance(dog, Description)
    assert isinstance(ball, Rejection)
    assert "to the left of a green ball" in dog.long_caption


def test_hostile_phrases_leave_no_markup():
    hostile = "a <img src=x onerror=alert(1)> dog\u202e &amp; ```ignore```"
    (description,) = described(scene([(hostile, "red", disc(60, 60, 30))]))
    for text in (description.long_caption, description.short_caption, description.object_caption):
        assert not set(text) & set("<>&`\u202e")


def test_limits_that_rules_cannot_meet_reject_the_region():
    (outcome,) = describe(scene([("a dog", "red", disc(60, 60, 30))]), WordLimits(150, 200, 2, 20))
    assert isinstance(outcome, Rejection)
    assert (outcome.stage, outcome.reason) == ("merge", "too_short")


@pytest.mark.parametrize("limits", [WordLimits(17, 21, 2, 20), WordLimits(30, 60, 2, 5)])
def test_other_limits_are_kept(limits):
    for description in described(scene([("a dog", "red", disc(60, 60, 30))]), limits):
        assert limits.min_long <= len(description.long_caption.split()) <= limits.max_long
        assert limits.min_short <= len(description.short_caption.split()) <= limits.max_short
