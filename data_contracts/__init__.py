"""What good data is: one file an artifact with its schema and its rules; `engine` checks them."""
