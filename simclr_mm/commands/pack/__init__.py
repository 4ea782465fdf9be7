"""A folder of images in a few large files."""
