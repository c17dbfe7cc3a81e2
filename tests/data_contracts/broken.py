"""Rows that break a rule each: artifact -> rule, and what is changed in a good row."""

from typing import Any

Row = dict[str, Any]
EMPTY = {"mask_area_px": 0}
SHORT_BOX = {"box_xyxy": [1.0, 2.0, 3.0]}
NAN = float("nan")
HTML = {"long_caption": "<p>A small red cat sits on a mat in front of a wall and looks at us.</p>"}
THINKING = {"context_caption": "<think>where is it</think> on the left of a mat"}

BOXES = [
    ("box_inside_image", {"box_xyxy": [-1.0, 10.0, 50.0, 60.0]}),
    ("box_inside_image", {"box_xyxy": [10.0, 10.0, 120.5, 60.0]}),
    ("box_inside_image", {"box_xyxy": [10.0, 10.0, 50.0, 101.0]}),
    ("box_inside_image", {"box_xyxy": [10.0, NAN, 50.0, 60.0]}),
    ("box_inside_image", SHORT_BOX),
    ("box_not_empty", {"box_xyxy": [10.0, 10.0, 10.0, 60.0]}),
    ("box_not_empty", {"box_xyxy": [50.0, 10.0, 10.0, 60.0]}),
    ("box_not_empty", SHORT_BOX),
]
CANDIDATES = [
    *BOXES,
    ("region_id_well_formed", {"region_id": "no id"}),
    ("image_sha256_well_formed", {"image_sha256": "abc"}),
    ("image_phash_well_formed", {"image_phash": "xyz"}),
    ("image_not_empty", {"image_width_px": 0}),
    ("phrase_not_empty", {"phrase": "  "}),
    ("phrase_not_empty", {"phrase": "cat " * 100}),
    ("score_in_range", {"score": 1.5}),
    ("split_known", {"split": "test"}),
    ("required_values_present", {"image_caption": None}),
]
REGIONS = [
    *CANDIDATES,
    ("mask_not_empty", EMPTY),
    ("mask_inside_image", {"mask_size": [120, 100]}),
    ("mask_inside_image", {"mask_size": [100]}),
    ("mask_counts_cover_image", {"mask_counts": "OTHER"}),
    ("mask_counts_cover_image", {"mask_counts": "`"}),
    ("mask_counts_cover_image", {"mask_counts": ""}),
    ("mask_area_matches_counts", {"mask_area_px": 1999}),
    ("mask_source_known", {"mask_source": "guess"}),
    ("mask_score_in_range", {"mask_score": 9.0}),
]
CAPTIONS_ONLY = [
    ("long_caption_length", {"long_caption": ""}),
    ("long_caption_length", {"long_caption": "a red cat on a green mat " * 60}),
    ("short_caption_length", {"short_caption": ""}),
    ("object_caption_length", {"object_caption": " "}),
    ("context_caption_length", {"context_caption": " "}),
    ("long_caption_not_shorter_than_short", {"short_caption": "a cat on a mat " * 20}),
    ("captions_without_markup", HTML),
    ("captions_without_markup", THINKING),
    ("captions_without_markup", {"short_caption": "salt &amp; pepper"}),
]
CAPTIONS = [
    *REGIONS,
    *CAPTIONS_ONLY,
    ("verdict_accepted", {"verdict": "rejected"}),
    ("provenance_is_an_object", {"provenance": "embedded"}),
    ("prompt_tokens_not_negative", {"prompt_tokens": -1}),
    ("completion_tokens_not_negative", {"completion_tokens": -1}),
    ("cost_not_negative", {"cost_usd": -0.1}),
]
BROKEN: dict[str, list[tuple[str, Row]]] = {
    "records": [
        ("region_id_of_record", {"record_id": "12345"}),
        ("url_well_formed", {"url": "ftp://example.org/1.jpg"}),
        ("phrase_not_empty", {"phrase": ""}),
        ("box_inside_image", {"box_norm": [0.1, 0.1, 1.5, 0.6]}),
        ("box_inside_image", {"box_norm": [-0.1, 0.1, 0.5, 0.6]}),
        ("box_not_empty", {"box_norm": [0.5, 0.1, 0.5, 0.6]}),
        ("box_not_empty", {"box_norm": [NAN] * 4}),
        ("score_in_range", {"score": -0.1}),
        ("clip_similarity_in_range", {"clip_similarity": 2.0}),
        ("own_mask_whole", {"mask_size": [100, 121]}),
        ("own_mask_whole", {"mask_counts": None}),
        ("own_mask_whole", {"mask_size": None}),
        ("split_known", {"split": "validation"}),
        ("required_values_present", {"image_caption": None}),
    ],
    "candidates": CANDIDATES,
    "regions": REGIONS,
    "captions": CAPTIONS,
    "contrasted": [
        *CAPTIONS,
        ("at_most_ten_hard_negatives", {"hard_negatives": [f"{n} red cats" for n in range(11)]}),
        ("hard_negatives_length", {"hard_negatives": ["a blue cat on a mat " * 20]}),
        ("hard_negatives_not_empty", {"hard_negatives": ["a blue cat on a mat", " "]}),
        ("hard_negatives_not_empty", {"hard_negatives": [None]}),
        ("hard_negatives_differ", {"hard_negatives": ["A red  cat on a mat"]}),
        ("hard_negatives_differ", {"hard_negatives": ["a blue cat on a mat"] * 2}),
        ("hard_negatives_without_markup", {"hard_negatives": ["a <b>blue</b> cat on a mat"]}),
        ("required_values_present", {"hard_negatives": None}),
    ],
    "images": [
        ("status_known", {"status": "maybe"}),
        ("failed_with_a_reason_ok_without", {"reason": "http_404"}),
        ("failed_with_a_reason_ok_without", {"status": "failed"}),
        ("ok_with_an_image_failed_without", {"sha256": None}),
        ("ok_with_an_image_failed_without", {"status": "failed", "reason": "http_404"}),
        ("sha256_well_formed", {"sha256": "ABC"}),
        ("phash_well_formed", {"phash": "12"}),
        ("shard_beside_manifest", {"shard": "../00000.tar"}),
        ("num_bytes_positive", {"num_bytes": 0}),
        ("width_px_positive", {"width_px": 0}),
        ("height_px_positive", {"height_px": -1}),
        ("stored_width_positive", {"stored_width": 0}),
        ("stored_height_positive", {"stored_height": 0}),
        ("orientation_known", {"orientation": 0}),
        ("upright_size_is_the_stored_one_turned", {"orientation": 6}),
        ("upright_size_is_the_stored_one_turned", {"stored_width": 1}),
        ("ok_with_an_image_failed_without", {"stored_height": None}),
        ("required_values_present", {"detail": None}),
    ],
    "quarantine": [
        ("step_well_formed", {"step": "In Gest"}),
        ("reason_is_a_short_code", {"reason": ""}),
        ("reason_is_a_short_code", {"reason": "a sentence about what went wrong"}),
        ("row_can_be_put_back", {"row": "None"}),
        ("required_values_present", {"url": None}),
    ],
    "longgrit": [
        *BOXES,
        *CAPTIONS_ONLY,
        ("image_id_well_formed", {"image_id": "abc"}),
        ("image_phash_well_formed", {"image_phash": "xyz"}),
        ("split_known", {"split": "test"}),
        ("shard_well_formed", {"shard": "../train/00000.tar"}),
        ("shard_of_split", {"shard": "other/00000.tar"}),
        ("key_well_formed", {"key": "../a"}),
        ("mask_not_empty", EMPTY),
        ("mask_inside_image", {"mask_area_px": 120 * 100 + 1}),
        ("mask_source_known", {"mask_source": ""}),
        ("words_counted", {"long_caption_words": 3}),
        ("words_counted", {"short_caption_words": 3}),
        ("required_values_present", {"subset": None}),
    ],
}
