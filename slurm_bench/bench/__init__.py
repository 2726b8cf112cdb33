"""What this GPU can do, measured with random weights at full size: nothing is downloaded."""
