"""Imported once by the server that forks the processes of the kill test: they start at once."""

import components.describe.endpoints.pipeline  # noqa: F401
from components.describe.endpoints.gates import identify_language

identify_language("This loads the model.")
