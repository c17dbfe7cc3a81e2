"""Bring GRIT's published Parquet files here, from a folder or an S3 prefix."""
