"""Make wrong captions that differ from the right one in one attribute; verify that they are wrong.

step.py      the step; settings.py its stages; writer.py rows with them, and what was left out
rules.py     what a wrong caption must be, checked without a model
flow.py      a region's way through the models; embedded.py changes that measures refute
"""
