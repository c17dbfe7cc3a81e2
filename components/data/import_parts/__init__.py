"""Published data sets of objects and their parts, as GRIT records: a part is a region."""
