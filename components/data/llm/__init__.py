"""Asking language models behind any OpenAI-compatible HTTP endpoint, vLLM first.

client.py     one request until it is answered, or known to be to blame
transport.py  one POST, and keys that are said back; replies.py where an answer stands
verdicts.py   whose fault it is if there is no answer
rotation.py   which endpoint takes the next request: limits, back-off, dead ones, probes
cache.py      every answer, kept as soon as it is received
prompt.py     prompt files, in `prompts/`; gates.py what a text must not contain
settings.py   endpoints, models and sampling of a stage
"""
