"""Control plane: what is wanted, what is observed, and the loop that makes them agree."""
