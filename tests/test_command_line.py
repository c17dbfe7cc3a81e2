"""The list of commands answers at once: to describe a step is not to load its libraries."""

import json
import subprocess
import sys

from components.steps import STEPS

SHOW_HELP = """
import json, sys
from components.cli import cli
cli(["--help"], standalone_mode=False)
print(json.dumps([name for name in sys.argv[1:] if name in sys.modules]))
"""
HEAVY = (
    "aiohttp", "boto3", "cv2", "datasets", "great_expectations", "jinja2", "kfp", "pandas", "torch",
    "transformers", "webdataset",
)  # fmt: skip


def test_the_help_names_every_step_and_imports_nothing_heavy() -> None:
    command = [sys.executable, "-c", SHOW_HELP, *HEAVY]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    text, heavy = done.stdout.rstrip().rsplit("\n", 1)
    listed = [line.split()[0] for line in text.partition("Commands:")[2].split("\n") if line]
    assert set(listed) >= {name.replace("_", "-") for name in STEPS}
    assert json.loads(heavy) == []
