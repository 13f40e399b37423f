"""What runs in a replica: the engines, their supervisor, the guard, dialects and model sources."""
