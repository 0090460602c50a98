"""What prints the tables in docs/."""
