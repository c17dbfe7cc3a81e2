"""A sample of stand-in photographs, made once."""

from pathlib import Path

import pytest

from components.data.sample_grit.step import sample_grit
from tests.data.sample_grit.stand_ins import draw_photographs


@pytest.fixture(scope="session")
def photographs(tmp_path_factory) -> Path:
    return draw_photographs(tmp_path_factory.mktemp("photographs"))


@pytest.fixture(scope="session")
def make_sample(photographs, tmp_path_factory):
    def make(**changes) -> Path:
        grit = tmp_path_factory.mktemp("sample") / "grit"
        small = {"num_scenes": 40, "width_px": 320, "height_px": 240}
        settings = sample_grit.settings_type(**{**small, **changes}, photographs=str(photographs))
        sample_grit.function(grit=grit, settings=settings)
        return grit

    return make


@pytest.fixture(scope="session")
def grit(make_sample) -> Path:
    """80 records of which two fifths are broken: every fault four times."""
    return make_sample(num_scenes=80, fault_share=0.4, benchmark_share=0.25)
