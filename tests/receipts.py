"""Receipts as tests want them: what does not matter is empty."""

from pathlib import Path
from typing import Any

from components.core.digests import RECEIPT_NAME
from components.core.receipts import Receipt

EMPTY: dict[str, Any] = {
    "version": 1,
    "fingerprint": "0" * 64,
    "settings": {},
    "thresholds": {},
    "inputs": {},
    "metrics": {},
    "contracts": {},
    "files": {},
}


def write_receipt(folder: Path, step: str, artifact: str, **known: Any) -> Receipt:
    """Put a receipt into a folder."""
    receipt = Receipt(step=step, artifact=artifact, **(EMPTY | known))
    (folder / RECEIPT_NAME).write_text(receipt.to_json(), encoding="utf-8")
    return receipt
