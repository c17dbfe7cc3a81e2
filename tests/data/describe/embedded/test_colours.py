"""Colours get the names that people give them."""

import numpy as np
import pytest

from components.data.describe.embedded.colours import name_colours, share_like


def patch(*codes: str) -> np.ndarray:
    """Pixels [100 per code, 3] of these hexadecimal colours."""
    return np.repeat([list(bytes.fromhex(code)) for code in codes], 100, axis=0).astype(np.uint8)


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("000000", "black"),
        ("1c1c1c", "black"),
        ("ffffff", "white"),
        ("f5f5f5", "white"),
        ("808080", "grey"),
        ("708090", "grey"),
        ("ff0000", "red"),
        ("8b0000", "red"),
        ("dc143c", "red"),
        ("ffa500", "orange"),
        ("ff7f50", "orange"),
        ("ffff00", "yellow"),
        ("ffd700", "yellow"),
        ("228b22", "green"),
        ("98fb98", "green"),
        ("003300", "green"),
        ("808000", "olive"),
        ("40e0d0", "teal"),
        ("1e90ff", "blue"),
        ("191970", "blue"),
        ("add8e6", "blue"),
        ("4682b4", "blue"),
        ("4b0082", "purple"),
        ("9370db", "purple"),
        ("ff69b4", "pink"),
        ("ffb6c1", "pink"),
        ("8b4513", "brown"),
        ("654321", "brown"),
        ("d2b48c", "tan"),
        ("faebd7", "beige"),
    ],
)
def test_a_flat_patch_gets_the_name_people_use(code, name):
    (colour,) = name_colours(patch(code))
    assert (colour.name, colour.share) == (name, 1.0)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("ff0000", "vivid red"),
        ("191970", "dark blue"),
        ("add8e6", "light blue"),
        ("003300", "dark green"),
        ("303030", "dark grey"),
        ("d3d3d3", "light grey"),
        ("ffffff", "white"),
    ],
)
def test_shades_are_told_apart(code, words):
    assert name_colours(patch(code))[0].words == words


def test_colours_come_by_their_share_and_small_ones_are_left_out():
    pixels = patch(*["228b22"] * 6, *["ff0000"] * 3, "0000ff")
    names = [(colour.name, colour.share) for colour in name_colours(pixels)]
    assert names == [("green", 0.6), ("red", 0.3)]


@pytest.mark.parametrize(
    ("word", "code", "is_near"),
    [
        ("red", "b22222", True),
        ("red", "8b4513", True),  # a red cow is brown
        ("red", "2040c0", False),
        ("green", "6b8e23", True),
        ("green", "dc143c", False),
        ("blue", "384c70", True),
        ("blue", "808080", False),
        ("black", "303030", True),
        ("black", "f5f5f5", False),
        ("white", "ebebeb", True),
        ("white", "101010", False),
        ("silver", "c0c0c0", True),
        ("silver", "ff0000", False),
    ],
)
def test_a_colour_word_is_read_generously(word, code, is_near):
    assert share_like(word, patch(code)) == float(is_near)
