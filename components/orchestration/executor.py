"""kfp's executor of a component, which keeps to itself what it says of itself.

    python -m components.orchestration.executor --component_module_path … --executor_input …

Its log begins lines as `processes.py` reads them.
"""

import logging
import sys

LOG_FORMAT = "%(levelname)s %(name)s: %(message)s"


def main() -> None:
    """Run the component that the command line names."""
    from kfp.dsl.executor_main import executor_main

    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter(LOG_FORMAT))
    # kfp logs by the root logger: its input, which may be long, and what it is about to do.
    handler.addFilter(lambda record: record.name != "root" or record.levelno >= logging.WARNING)
    logging.basicConfig(handlers=[handler], level=logging.INFO)
    executor_main()


if __name__ == "__main__":
    main()
