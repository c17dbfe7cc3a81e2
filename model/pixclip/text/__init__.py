"""The text side: a language model read in both directions, its cached embeddings, the adaptor."""
