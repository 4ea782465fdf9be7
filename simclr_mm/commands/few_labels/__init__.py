"""What an encoder reaches with few labels, by five methods."""
