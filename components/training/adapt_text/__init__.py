"""Make an encoder of a causal language model."""
