"""What is around every step: its contract, drafts, receipts, quarantine and checks."""
