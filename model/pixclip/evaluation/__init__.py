"""How well a model tells regions apart: protocol, ranks, intervals, comparison, pictures."""
