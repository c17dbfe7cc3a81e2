"""What good data is: one file per artifact with its schema and its Great Expectations suite."""
