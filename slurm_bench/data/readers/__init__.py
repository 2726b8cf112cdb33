"""Where samples come from, one reader a file."""
