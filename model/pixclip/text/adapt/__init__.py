"""Make an encoder of a causal language model (LLM2Vec): masked tokens, then a contrast."""
