"""Make one data set of several, with one split everywhere."""
