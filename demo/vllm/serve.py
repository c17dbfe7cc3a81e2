"""Start vLLM servers as children of this process, wait until they answer, stop them cleanly.

.venv/bin/python demo/vllm/serve.py     # serves both models until Ctrl-C
"""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

from rich.console import Console

PROJECT = Path(__file__).resolve().parents[2]
PYTHON = PROJECT / ".venv-vllm" / "bin" / "python"
MODELS = PROJECT / ".cache" / "models"
HOST = "127.0.0.1"
MAX_MODEL_TOKENS = 4096
KV_CACHE_GIB = 1
START_TIMEOUT_S = 240.0
STOP_TIMEOUT_S = 15.0
# Blanks between JSON tokens are legal, and a weak model writes nothing else until it is cut off.
STRUCTURED_OUTPUTS = '{"backend": "xgrammar", "disable_any_whitespace": true}'
COUNTERS = ("request_success", "prefix_cache_queries", "prefix_cache_hits", "mm_cache_queries")

# A proxy of the environment must not be asked for this machine's own servers.
_OPENER = build_opener(ProxyHandler({}))


class ServerError(RuntimeError):
    """A server did not start; carries the end of its log."""


@dataclass(frozen=True)
class Server:
    """A running vLLM server."""

    model: str
    port: int
    log_path: Path
    process: "subprocess.Popen[bytes]"

    @property
    def base_url(self) -> str:
        """What an OpenAI client calls the base URL."""
        return f"http://{HOST}:{self.port}/v1"


@contextmanager
def serve(models: Sequence[str], log_folder: Path) -> Iterator[dict[str, str]]:
    """Servers for these models; gives model name -> base URL and stops them at the end.

    Raises:
        ServerError: one of them ended or did not answer in time.
    """
    log_folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        servers = []
        for model in models:
            servers.append(_start(model, log_folder / f"{model}.log"))
            stack.callback(_stop, servers[-1].process)
        for server in servers:
            _await_health(server, START_TIMEOUT_S)
        yield {server.model: server.base_url for server in servers}


def read_counters(base_urls: Iterable[str]) -> Counter[str]:
    """What the servers counted since they started, summed over them."""
    counts: Counter[str] = Counter()
    for url in base_urls:
        with _OPENER.open(url.removesuffix("/v1") + "/metrics", timeout=10) as reply:
            text = reply.read().decode()
        for name in COUNTERS:
            values = re.findall(rf"^vllm:{name}_total{{[^}}]*}} (\S+)$", text, re.MULTILINE)
            counts[name] += round(sum(map(float, values)))
    return counts


def _start(model: str, log_path: Path) -> Server:
    port = _free_port()
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            _command(model, port),
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # vLLM has children of its own: the group is stopped whole
        )
    return Server(model, port, log_path, process)


def _command(model: str, port: int) -> list[str]:
    return [
        # Its `vllm` program looks for a distribution of that name and does not find its version.
        *(str(PYTHON), "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", str(MODELS / model), "--served-model-name", model),
        *("--host", HOST, "--port", str(port)),
        *("--max-model-len", str(MAX_MODEL_TOKENS), "--max-num-seqs", "16", "--enforce-eager"),
        *("--dtype", "float32"),  # bfloat16 is emulated on a CPU without its instructions
        *("--structured-outputs-config", STRUCTURED_OUTPUTS),
    ]


def _environment() -> dict[str, str]:
    return {
        **os.environ,
        "VLLM_CPU_KVCACHE_SPACE": str(KV_CACHE_GIB),
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # the servers share the cores
        "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // 2)),
        "OMP_WAIT_POLICY": "passive",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _await_health(server: Server, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            raise ServerError(f"the server of {server.model} ended: {_log_tail(server.log_path)}")
        try:
            with _OPENER.open(f"http://{HOST}:{server.port}/health", timeout=5):
                return
        except (URLError, OSError):
            time.sleep(0.5)
    raise ServerError(
        f"the server of {server.model} did not answer in {timeout_s:.0f} s: "
        f"{_log_tail(server.log_path)}"
    )


def _log_tail(path: Path) -> str:
    lines = path.read_text(errors="replace", encoding="utf-8").splitlines()
    return f"see {path}; it ends with\n" + "\n".join(lines[-15:])


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """End the process group: politely, then without asking, so that no worker stays behind."""
    _signal_group(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_TIMEOUT_S)
    _signal_group(process.pid, signal.SIGKILL)
    process.wait()


def _signal_group(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, number)


def stop_on_sigterm() -> None:
    """Let a SIGTERM unwind the stack, so that the servers are stopped too."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def main() -> None:
    """Serve both models until interrupted."""
    stop_on_sigterm()
    with serve(sorted(path.name for path in MODELS.iterdir()), MODELS.parent / "vllm-logs") as urls:
        for model, url in urls.items():
            Console().print(f"{model}: {url}")
        try:
            signal.pause()
        except KeyboardInterrupt:
            return


if __name__ == "__main__":
    main()
