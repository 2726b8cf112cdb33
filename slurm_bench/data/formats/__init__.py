"""What Pillow doesn't tell of an image file, a module a format."""
