"""What rounding can explain: by noise in every operation, and by bounds on every operation."""
