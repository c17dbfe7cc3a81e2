"""Find the parts of objects that no source annotates, with an open-vocabulary detector."""
