"""Training: recipes, the loop, the engine below it, and checkpoints that survive a kill."""
