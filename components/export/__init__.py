"""Export the data set to formats that others open without our code."""
