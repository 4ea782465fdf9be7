"""Features of every image in a folder, and a search index of them."""
