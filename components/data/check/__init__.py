"""Check an artifact as a whole against its contract, and show the result as pages."""
