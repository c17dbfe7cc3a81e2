"""What a checkpoint can do, in numbers and pictures."""
