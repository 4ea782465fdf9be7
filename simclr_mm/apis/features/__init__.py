"""Features of images: kept on disk, named by a fingerprint, read and searched."""
