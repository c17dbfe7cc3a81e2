"""What values look like that several artifacts hold."""

SHA256, PHASH = r"^[0-9a-f]{64}$", r"^[0-9a-f]{16}$"
URL = r"^(?:https?|s3|file)://"
MASK_SOURCE = r"^(?:record|grabcut|box|sam:\S+)$"
UNDECIDED = ""  # the split of a region before the data set is packed
MAX_PHRASE_WORDS = 60
BOX_TOLERANCE = 1e-6  # how far a box may reach outside its image
