"""Rules, and how tables are read, checked against them and shown."""
