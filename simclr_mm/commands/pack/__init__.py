"""Pack a folder of images into a few large files."""
