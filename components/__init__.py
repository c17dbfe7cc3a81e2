"""The steps by area, what is around each (`core`), and what runs them (`orchestration`)."""
