"""Describe regions in three stages, verified: object caption, context caption, long caption.

step.py       the step; outcomes.py what became of each region, and the ledger of the costs
scenes.py     an image with its regions and captions
embedded/     the describer of a laptop: rules over what is measured
pipeline.py   the describer behind endpoints: regions flow through the five stages
flow.py       one region through its stages; stage.py one stage of one region
pictures.py   what is drawn and cropped for the models; answers.py what an answer must look like
"""
