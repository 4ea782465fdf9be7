"""From a folder of images to an encoder, without a config."""
