"""A version of the data set, out of the repository or the folder that keeps it."""
