"""Why a region is dropped, or an entry of an import: every reason of every step, with its meaning.

The value of a reason is what stands in the quarantine and in a step's metrics. A name with a `*` is
a family: `http_*` stands for `http_404` and its like. `pixclip reasons` prints the table, and
docs/reasons.md holds it.
"""

import itertools
from collections.abc import Iterator, Mapping
from enum import StrEnum
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Self

from pixclip.image_limits import ImageFault


class Reason(StrEnum):
    """A reason and its meaning, which goes on where "dropped because" ends."""

    meaning: str

    def __new__(cls, name: str, meaning: str) -> Self:
        reason = str.__new__(cls, name)
        reason._value_, reason.meaning = name, meaning
        return reason

    def of(self, part: object) -> str:
        """A member of a family: `http_*` of 404 is `http_404`."""
        return self.value.replace("*", str(part))

    def holds(self, reason: str) -> bool:
        """Whether a reason is this one, or one of this family."""
        return fnmatchcase(reason, self.value)


class ImportReason(Reason):
    """Why an entry of an annotation file is left out; `_left_out.jsonl` has its place."""

    BAD_ID = "bad_id", "an id is neither a whole number nor a text"
    BAD_NUMBER = "bad_number", "a number is missing or not a whole one"
    BAD_FLAG = "bad_flag", "a flag is neither 0 nor 1"
    BAD_TEXT = "bad_text", "a name or a caption is not a text"
    BAD_SIZE = "bad_size", "the image's size is impossible"
    BAD_FILE_NAME = "bad_file_name", "the file name is missing, or leads out of the images' folder"
    BAD_BOX = "bad_box", "the box is not four numbers, and no mask shows where it is"
    NO_OBJECT = "no_object", "the entry is not a JSON object"
    UNKNOWN_IMAGE = "unknown_image", "the entry is of an image that the file does not list"
    AMBIGUOUS_IMAGE = "ambiguous_image", "two images have the same id"
    UNKNOWN_CATEGORY = "unknown_category", "the entry is of a category that the file does not list"
    AMBIGUOUS_CATEGORY = "ambiguous_category", "two categories have the same id"


class MaskPartReason(Reason):
    """Why a part of an annotation's mask is left out: counted as `mask_parts.left_out.…`."""

    NOT_A_SHAPE = "not_a_shape", "part of a mask: it is neither a polygon nor an RLE"
    EMPTY_PART = "empty_part", "part of a mask: it has no point"
    MANY_POINTS = "many_points", "part of a mask: the polygon has more points than any has"
    NOT_NUMBERS = "not_numbers", "part of a mask: the polygon is not a list of finite numbers"
    ODD_NUMBERS = "odd_numbers", "part of a mask: the polygon's numbers are not pairs x, y"
    TWO_POINTS = "two_points", "part of a mask: the polygon has fewer than three points"
    OUTSIDE_IMAGE = "outside_image", "part of a mask: no part of the polygon is inside the image"
    LONG_OUTLINE = "long_outline", "part of a mask: the outlines are longer than any are"
    NO_AREA = "no_area", "part of a mask: the polygon covers no pixel"
    WRONG_SIZE = "wrong_size", "part of a mask: the RLE is of an image of another size"
    BAD_RUNS = "bad_runs", "part of a mask: the runs of the RLE do not add up to the image"
    EMPTY_MASK = "empty_mask", "part of a mask: the mask is empty"


class PartReason(Reason):
    """Why `import_parts` leaves out a row of a source, an image, or a part of an object."""

    MALFORMED_ROW = "malformed_row", "a row of a file does not have the fields of its format"
    REPEATED_ROW = "repeated_row", "an earlier row of the file has the same id"
    UNKNOWN_REFERENCE = "unknown_reference", "a row is of something that the other file lacks"
    UNKNOWN_SPLIT = "unknown_split", "no file says whether the image is for training or for testing"
    IMAGE_MISSING = "image_missing", "the source does not hold the image's file"
    IMAGE_CHANGED = "image_changed", "the file is not the one that was annotated, by its MD5"
    PART_NOT_VISIBLE = "part_not_visible", "the annotators did not see the part"
    PART_OUTSIDE_IMAGE = "part_outside_image", "the part's point or box is not in the photograph"
    GROUP_OF_PARTS = "group_of_parts", "the box is of several parts together (`iscrowd`)"
    PART_OFF_OBJECT = "part_off_object", "the part's box does not meet the object, or its mask"


class FineHardReason(Reason):
    """Why `import_finehard` leaves out an image, or a region of it."""

    IMAGE_MISSING = "image_missing", "neither a file nor a tar's member has the name in `f_path`"
    TOO_LARGE = "too_large", "the image has more bytes than import_finehard.max_bytes"
    ORIENTATION_UNDECIDED = (
        "orientation_undecided",
        "the image is turned by its EXIF data, and nobody says which way its boxes are measured",
    )
    DUPLICATE_IMAGE = "duplicate_image", "an earlier entry has an image of the same bytes"
    BOX_OUTSIDE_IMAGE = "box_outside_image", "the box leaves the image by more than rounding"
    EMPTY_BOX = "empty_box", "the box has no area inside the image"
    TINY_BOX = "tiny_box", "the box has too few pixels in the image"
    TOO_LONG = "too_long", "a text has more words than a data set holds"
    LONG_TEXT_SHORTER = "long_text_shorter", "the long text has fewer words than the short one"
    WRONG_NEGATIVES = (
        "wrong_negatives",
        "hard negatives are flagged, but are not as many as they should be, or one is the caption",
    )


class SelectReason(Reason):
    """What the source says of a record or a region, before anything is downloaded."""

    TEXT_NOT_UTF8 = "text_not_utf8", "a text of the record is not UTF-8"
    TEXT_TOO_LONG = "text_too_long", "the address or the caption has more bytes than any has"
    MALFORMED_VALUE = "malformed_value", "a value of the record is not the number it should be"
    MISSING_VALUE = "missing_value", "the record lacks its id, address, caption or size"
    UNKNOWN_ADDRESS = "unknown_address", "the address is of no kind that can be fetched"
    UNKNOWN_SPLIT = "unknown_split", "the source names a split that the data set does not have"
    MASKS_NOT_PARALLEL = "masks_not_parallel", "the record has masks, but not one for each region"
    IMPOSSIBLE_SIZE = "impossible_size", "the declared size is beyond that of any image"
    SMALL_IMAGE = "small_image", "the declared image is too small to crop regions from"
    IMPOSSIBLE_SIMILARITY = "impossible_similarity", "the CLIP similarity is not a cosine"
    LOW_CLIP_SIMILARITY = "low_clip_similarity", "the caption hardly matches the image"
    DUPLICATE_ID = "duplicate_id", "an earlier record has the same id"
    MALFORMED_REGION = "malformed_region", "the region does not have its seven numbers"
    WRONG_OFFSETS = "wrong_offsets", "the offsets cut no text out of the caption"
    NOT_FINITE = "not_finite", "the box or the score is NaN or infinite"
    IMPOSSIBLE_SCORE = "impossible_score", "the detector's score is not a probability"
    BOX_OUTSIDE_IMAGE = "box_outside_image", "the box leaves the image by more than rounding"
    EMPTY_BOX = "empty_box", "the box has no area inside the image"
    LOW_SCORE = "low_score", "the detector was not sure enough of the region"
    TINY_BOX = "tiny_box", "the box has too few pixels to show anything"
    SMALL_BOX = "small_box", "the box covers too little of the image"
    LARGE_BOX = "large_box", "the box is nearly the whole image"
    PHRASE_NAMES_NOTHING = "phrase_names_nothing", "the phrase has no letter and no digit"
    SHORT_PHRASE = "short_phrase", "the phrase is too short to name something"
    LONG_PHRASE = "long_phrase", "the phrase is longer than a noun phrase"
    DAMAGED_MASK = "damaged_mask", "the source's mask is not one of an image of the declared size"
    DUPLICATE_URL = "duplicate_url", "an earlier record has the same address"
    DUPLICATE_REGION = "duplicate_region", "an earlier region of the image has this box and phrase"


class IngestReason(Reason):
    """Why an address gave no usable image."""

    BAD_URL = "bad_url", "the address is not a valid one"
    BAD_SCHEME = "bad_scheme", "the address has no scheme, or one that is not fetched"
    PRIVATE_ADDRESS = "private_address", "the host is in a private network"
    DNS_FAILURE = "dns_failure", "the host's name has no address"
    TIMEOUT = "timeout", "the host did not answer in time"
    CONNECTION_FAILED = "connection_failed", "the host took no connection"
    CONNECTION_BROKEN = "connection_broken", "the connection ended before the image was there"
    TLS_ERROR = "tls_error", "no secure connection: the certificate or the protocol is wrong"
    BAD_RESPONSE = "bad_response", "the answer is not valid HTTP"
    BAD_ENCODING = "bad_encoding", "the body is compressed in a way that was not asked for"
    HTTP_STATUS = "http_*", "the host answered with this status instead of an image"
    TOO_MANY_REDIRECTS = "too_many_redirects", "more redirects than ingest.max_redirects"
    NOAI = "noai", "the host forbids the use for AI (X-Robots-Tag)"
    TOO_LARGE = "too_large", "more bytes than ingest.max_bytes"
    FILE_NOT_ALLOWED = "file_not_allowed", "the file is not below ingest.file_root"
    FILE_MISSING = "file_missing", "no such file below ingest.file_root"
    FILE_CHANGED = "file_changed", "the file is not the one that was imported"
    S3_NOT_ALLOWED = "s3_not_allowed", "the bucket is not in ingest.s3_buckets"
    S3_MISSING = "s3_missing", "the store has no such object"
    S3_DENIED = "s3_denied", "the store denies access to the object"
    S3_UNREACHABLE = "s3_unreachable", "the store gave no answer"
    S3_ERROR = "s3_error", "the store answered with another error"
    OUT_OF_MEMORY = "out_of_memory", "decoding the image takes more memory than there is"


class ImageReason(Reason):
    """Why a file that arrived cannot be used as an image."""

    NOT_AN_IMAGE = ImageFault.NOT_AN_IMAGE.value, "the bytes are of no image format that is read"
    TRUNCATED_IMAGE = ImageFault.TRUNCATED_IMAGE.value, "the image is cut off or damaged"
    TOO_MANY_PIXELS = ImageFault.TOO_MANY_PIXELS.value, "more pixels than the limit"
    TOO_COSTLY = ImageFault.TOO_COSTLY.value, "decoding it would take too long or too much memory"
    TOO_SMALL = "too_small", "a side of the image is below min_side_px"


class DeduplicateReason(Reason):
    """What the images of all groups together, and their true sizes, show."""

    DUPLICATE_IMAGE = "duplicate_image", "another image that is kept has the same bytes"
    NEAR_DUPLICATE_IMAGE = "near_duplicate_image", "another image that is kept looks the same"
    IMAGE_SIZE_MISMATCH = "image_size_mismatch", "the image is not of the declared size or shape"
    ORIENTATION_UNDECIDED = (
        "orientation_undecided",
        "it is unknown whether boxes are measured in the stored or in the turned photograph",
    )
    MASK_DAMAGED = "mask_damaged", "the source's mask cannot be decoded to be turned"
    MASK_SIZE_MISMATCH = "mask_size_mismatch", "the source's mask is not of the image's size"
    TINY_BOX = "tiny_box", "the box has too few pixels in the image that arrived"


class DecontaminateReason(Reason):
    """Why a training image must not be learnt from: an evaluation set tests with it."""

    LEAKED_IMAGE = "leaked_image", "a test image of an evaluation set has the same bytes"
    LEAKED_LOOK_ALIKE = "leaked_look_alike", "a test image of an evaluation set looks the same"
    LEAKED_MIRRORED = (
        "leaked_mirrored",
        "mirrored, a test image of an evaluation set looks the same",
    )


class DetectReason(Reason):
    """Why a part that a detector found, or the image that it searched, is dropped."""

    IMAGE_SIZE_MISMATCH = "image_size_mismatch", "the image is not of the size its rows say"
    OFF_OBJECT = "off_object", "too little of the part's box lies in the object's box"
    WHOLE_OBJECT = "whole_object", "the part's box shows nearly the whole object"
    TINY_BOX = "tiny_box", "the part's box has too few pixels"


class SegmentReason(Reason):
    """Why a region has no usable mask."""

    NO_MASK = "no_mask", "the record brought no mask and no segmenter is set to make one"
    OWN_MASK_UNUSABLE = "own_mask_unusable", "the import could not read the record's mask"
    MASK_SIZE_MISMATCH = "mask_size_mismatch", "the record's mask is not of the image's size"
    MASK_DAMAGED = "mask_damaged", "the record's mask cannot be decoded"
    IMAGE_SIZE_MISMATCH = "image_size_mismatch", "the image is not of the size its rows say"
    SEGMENTER_FAILED = "segmenter_failed", "the segmenter raised an error for the image"
    EMPTY_MASK = "empty_mask", "no pixel of the mask is inside the box"
    SMALL_MASK = "small_mask", "the mask has too few pixels, or fills too little of the box"
    WHOLE_IMAGE_MASK = "whole_image_mask", "the mask covers nearly the whole image"


class DescribeReason(Reason):
    """Why a region has no description."""

    INVALID_MASK = "invalid_mask", "the mask does not fit its image"
    IMAGE_MISMATCH = "image_mismatch", "the image is not of the size its rows say"
    REQUEST_REFUSED = "request_refused", "the server refuses the request"
    NO_ANSWER = "no_answer", "no server gave an answer, however often it was asked"
    INVALID_ANSWER = "invalid_answer", "the answer is not in the form that was asked for"
    REFUSAL = "refusal", "the model, or the server's content filter, refuses to describe"
    PROMPT_INJECTION = "prompt_injection", "the text speaks like an instruction to a model"
    PROMPT_ECHO = "prompt_echo", "the text repeats the prompt"
    MARKUP = "markup", "the text holds markup, code or an address"
    REPETITION = "repetition", "the text repeats itself, as of a model caught in a loop"
    WRONG_LANGUAGE = "wrong_language", "the text is not English"
    TOO_SHORT = "too_short", "a caption has fewer words than the settings ask for"
    TOO_LONG = "too_long", "a caption has more words than the settings allow"
    REJECTED_INCONSISTENT = "rejected_inconsistent", "the description contradicts the image"
    REJECTED_INVISIBLE = "rejected_invisible", "the description speaks of what cannot be seen"
    REJECTED_LANGUAGE = "rejected_language", "the description or the phrase is not English"
    REJECTED_UNCERTAIN = (
        "rejected_uncertain",
        "the phrase or the mask is too little to describe the region by rules",
    )
    PART_NOT_NAMED = "part_not_named", "the caption has no word of the part's name"
    MERGE_LOST_OBJECT = "merge_lost_object", "the long caption no longer names the object"
    MERGE_LOST_LOCATION = "merge_lost_location", "the long caption no longer says where it is"


class MergeReason(Reason):
    """Why `merge_data` leaves an image of one data set out, with its regions."""

    REPEATED_IMAGE = "repeated_image", "an earlier set holds the same bytes in the same split"
    LEAKED_IMAGE = (
        "leaked_image",
        "another set holds the same bytes in a stricter split: benchmark before val before train",
    )
    LEAKED_LOOK_ALIKE = (
        "leaked_look_alike",
        "an image of a stricter split of another set looks the same",
    )


class NegativeReason(Reason):
    """Why a wrong caption is left out (`_left_out.jsonl`), or a region has none; no region is lost.

    Counted as `negatives.left_out.…` and as `regions_without_negatives.…`; why models gave no
    answer is told by the reasons of `describe`.
    """

    SAME_TEXT = "same_text", "wrong caption: it is the right one, but for spelling"
    REPEATED = "repeated", "wrong caption: the region has the same already"
    OTHER_ATTRIBUTE = "other_attribute", "wrong caption: its attribute is none of the settings'"
    NOT_ONE_CHANGE = (
        "not_one_change",
        "wrong caption: it differs in more than one attribute, or by words that are only added",
    )
    LOST_NAME = "lost_name", "wrong caption: it no longer names what the region shows"
    TRUE_OF_TWIN = (
        "true_of_twin",
        "wrong caption: only the side differs, and the image shows that side's part too",
    )
    NOT_WRONG = "not_wrong", "wrong caption: the verifier finds that it fits the region"
    OTHER_THING = "other_thing", "wrong caption: the verifier finds that it is of something else"
    POOR_ENGLISH = "poor_english", "wrong caption: the verifier finds it no English"
    RIGHT_REFUSED = (
        "right_refused",
        "wrong caption: the verifier finds the right one wrong too, so its word says nothing",
    )
    SPARE = "spare", "wrong caption: the region has enough of them"
    WHOLE_IMAGE = "whole_image", "region without wrong captions: it is the whole image"
    NONE_LEFT = "none_left", "region without wrong captions: none was made, or all were left out"


class ContractReason(Reason):
    """Why any step drops a row of its own output."""

    BROKEN_RULE = "contract:*", "the row breaks this rule of the contract of the step's output"


BY_STEP: Mapping[str, tuple[type[Reason], ...]] = {
    "import_coco": (ImportReason, MaskPartReason),
    "import_parts": (PartReason, ImportReason, ImageReason),
    "import_finehard": (FineHardReason, ImportReason, ImageReason),
    "select": (SelectReason,),
    "ingest": (IngestReason, ImageReason),
    "deduplicate": (DeduplicateReason,),
    "decontaminate": (DecontaminateReason,),
    "detect_parts": (DetectReason, ImageReason),
    "segment": (SegmentReason, ImageReason),
    "describe": (DescribeReason, ImageReason),
    "describe_parts": (DescribeReason, ImageReason),
    "make_hard_negatives": (NegativeReason, DescribeReason, ImageReason),
    "merge_data": (MergeReason,),
}


def reasons_of(step: str) -> Iterator[Reason]:
    """Every reason that a step may give, in the order of the table."""
    kinds: tuple[type[Reason], ...] = (*BY_STEP.get(step, ()), ContractReason)
    return itertools.chain.from_iterable(kinds)


@lru_cache(maxsize=1024)
def is_known(step: str, reason: str) -> bool:
    """Whether a step may give the reason."""
    return any(known.holds(reason) for known in reasons_of(step))
