"""The perceptual hash of images: that of `ingest`'s manifest, and what others compare with it."""

from PIL import Image

HASHED_SIZE_PX = (32, 32)  # what the hash sees; shrinking to it in two steps costs a third


def perceptual_hash(image: Image.Image) -> str:
    """The 64-bit DCT hash of an image (`imagehash.phash`) as 16 hex digits."""
    import imagehash  # brings scipy

    grey = image.convert("L")
    small = grey.resize(HASHED_SIZE_PX, Image.Resampling.LANCZOS, reducing_gap=3.0)
    return str(imagehash.phash(small))
