"""What a judge is asked, and how its answer is read: the same for every judge."""
