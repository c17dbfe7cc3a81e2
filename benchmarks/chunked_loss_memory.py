"""Memory of the chunked contrastive loss against the plain one, at the batch of a large run.

    python benchmarks/chunked_loss_memory.py [--batch 32768] [--dim 512] [--chunk 1024]

Each loss runs forward and backward in a process of its own; what is compared is the peak of its
resident memory above what the inputs took. The plain loss is CLIP's: one matrix of similarities,
two cross entropies. If this machine has too little memory for it, half and quarter batches
are measured and the rest is reckoned: it grows with the square of the batch.
"""

import argparse
import json
import subprocess
import sys
import time

import torch
from torch.nn import functional as F

from pixclip.training.contrastive import contrastive_loss

GIB = 2**30


def plain_loss(visual_BD: torch.Tensor, text_BD: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Eq. 2 and 3 as everybody writes them."""
    visual_BD, text_BD = F.normalize(visual_BD, dim=-1), F.normalize(text_BD, dim=-1)
    logits_BB = scale * visual_BD @ text_BD.T
    labels_B = torch.arange(len(logits_BB))
    return (F.cross_entropy(logits_BB, labels_B) + F.cross_entropy(logits_BB.T, labels_B)) / 2


def peak_bytes() -> int:
    """The most memory this process has had."""
    with open("/proc/self/status", encoding="utf-8") as file:
        (line,) = (line for line in file if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def measure_here(kind: str, batch: int, dim: int, chunk: int) -> dict[str, float]:
    """Loss, gradient, seconds and peak memory of one loss in this process."""
    torch.manual_seed(0)
    visual, text = torch.randn(batch, dim), torch.randn(batch, dim)
    text = visual + 8 * text  # cosines of a model that has learned something
    visual.requires_grad_()
    scale = torch.tensor([100.0])
    contrastive_loss(visual[:64], text[:64], scale, chunk_size=32).backward()  # loads libraries
    visual.grad = None
    before, started = peak_bytes(), time.perf_counter()
    if kind == "plain":
        loss = plain_loss(visual, text, scale)
    else:
        loss = contrastive_loss(visual, text, scale, chunk_size=chunk)
    loss.backward()
    return {
        "loss": loss.item(),
        "grad_norm": visual.grad.norm().item(),
        "seconds": time.perf_counter() - started,
        "bytes": peak_bytes() - before,
    }


def measure(kind: str, batch: int, options: argparse.Namespace) -> dict[str, float]:
    """The same in a process of its own."""
    command = [sys.executable, __file__, "--measure", kind, "--batch", str(batch)]
    command += ["--dim", str(options.dim), "--chunk", str(options.chunk)]
    done = subprocess.run(
        command, capture_output=True, check=True, encoding="utf-8", errors="replace"
    )
    found: dict[str, float] = json.loads(done.stdout)
    print(
        f"{kind:8} batch {batch:6}: {found['bytes'] / GIB:6.2f} GiB, {found['seconds']:6.1f} s, "
        f"loss {found['loss']:.6f}, gradient {found['grad_norm']:.6f}",
        flush=True,
    )
    return found


def free_bytes() -> int:
    """What the machine can still give."""
    with open("/proc/meminfo", encoding="utf-8") as file:
        (line,) = (line for line in file if line.startswith("MemAvailable"))
    return int(line.split()[1]) * 1024


def compare(options: argparse.Namespace) -> None:
    """Measure both and print the ratio."""
    batch = options.batch
    chunked = measure("chunked", batch, options)
    needed = 7 * 4 * batch**2  # seven matrices of float32 at the plain loss's peak, and some
    if free_bytes() > needed:
        plain, how = measure("plain", batch, options), "measured"
        for name in ("loss", "grad_norm"):
            assert abs(plain[name] - chunked[name]) <= 1e-4 * abs(plain[name]), name
    else:
        print(
            f"the plain loss needs about {needed / GIB:.0f} GiB: it is measured at smaller batches"
        )
        quarter, half = (measure("plain", batch // part, options) for part in (4, 2))
        growth = half["bytes"] / quarter["bytes"]
        plain, how = {"bytes": half["bytes"] * 4}, f"reckoned; half from quarter is x{growth:.2f}"
        small = measure("chunked", batch // 2, options)
        for name in ("loss", "grad_norm"):
            assert abs(half[name] - small[name]) <= 1e-4 * abs(half[name]), name
    ratio = plain["bytes"] / chunked["bytes"]
    print(f"plain {plain['bytes'] / GIB:.1f} GiB ({how}): {ratio:.1f} times the chunked loss's")


def main() -> None:
    """Compare, or measure one loss for the comparison."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--batch", type=int, default=32_768)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--chunk", type=int, default=1024)
    parser.add_argument("--measure", choices=("plain", "chunked"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        found = measure_here(options.measure, options.batch, options.dim, options.chunk)
        print(json.dumps(found))
    else:
        compare(options)


if __name__ == "__main__":
    main()
