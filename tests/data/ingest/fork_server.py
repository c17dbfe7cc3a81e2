"""Run the command line in fresh processes that need not import everything again.

Reads arguments as a JSON list a line; answers with the process's id, and with its exit code when
it has ended.
"""

import importlib
import json
import os
import sys

from components.cli import main

SLOW_TO_IMPORT = ("components.data.ingest.pack", "data_contracts.engine.check", "imagehash")

for name in ("components.data.ingest.step", *SLOW_TO_IMPORT, "great_expectations", "boto3"):
    importlib.import_module(name)

for line in sys.stdin:
    child = os.fork()
    if not child:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # the answers are the server's
        sys.argv[1:] = json.loads(line)
        main()
        os._exit(0)
    sys.stdout.write(f"{child}\n")
    sys.stdout.flush()
    sys.stdout.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n")
    sys.stdout.flush()
