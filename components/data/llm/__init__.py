"""The real backend: language models behind any OpenAI-compatible HTTP endpoint, vLLM first.

pipeline.py   regions flow through the five stages, each at its own pace
asker.py      one stage of one region: cache, request, validation, one repair, gates
client.py     one request until it is answered, or known to be to blame; sample.py whom to compare
transport.py  one POST; replies.py where an answer stands; verdicts.py whose fault it is if none
places.py     endpoints and keys; secrets.py finds keys that are said back
rotation.py   which endpoint takes the next request: limits, back-off, dead ones, probes
cache.py      every answer, kept as soon as it is received
prompt.py     prompt files; pictures.py what is drawn and cropped for them
answers.py    what an answer must look like; gates.py what a text must not contain
"""
