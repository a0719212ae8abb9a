"""One module per step, named after what it does to the tables."""
