"""Limits of the work that an untrusted image file may ask of a decoder, and their error."""

from enum import StrEnum

MAX_PARTS = 100_000  # segments, chunks, blocks; a picture of 50 megapixels has some thousands
MAX_SCANS = 100  # of a JPEG; encoders write up to 12 or so, and a decoder goes over all pixels each
MAX_ARITHMETIC_SCANS = 20  # arithmetic coding: a decoder goes on without any data, and slowly
MAX_METADATA_BYTES = 1_000_000  # of the one piece of metadata that may hold the orientation


class ImageFault(StrEnum):
    """Why a file cannot be used as an image: the `reason` of an `ImageError`."""

    NOT_AN_IMAGE = "not_an_image"
    TRUNCATED_IMAGE = "truncated_image"
    TOO_MANY_PIXELS = "too_many_pixels"
    TOO_COSTLY = "too_costly"
    UNREADABLE = "unreadable"  # of a file or an address that a user named


class ImageError(ValueError):
    """An image that cannot be used; `reason` is a short code."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


def require_pixels(width: int, height: int, max_pixels: int) -> None:
    """Refuse a size.

    Raises:
        ImageError: `too_many_pixels`.
    """
    if width * height > max_pixels:
        detail = f"{width} x {height} is over the limit of {max_pixels}"
        raise ImageError(ImageFault.TOO_MANY_PIXELS, detail)


def require_few(number: int, limit: int, what: str) -> None:
    """Refuse a number of parts, or of bytes.

    Raises:
        ImageError: `too_costly`.
    """
    if number > limit:
        raise ImageError(ImageFault.TOO_COSTLY, f"more than {limit} {what}")
