"""Imported once by the server that forks the processes of the kill test: they start at once."""

import components.data.describe.pipeline  # noqa: F401
from components.data.llm.gates import identify_language

identify_language("This loads the model.")
