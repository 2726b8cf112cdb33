"""The drawn samples that need no download."""
