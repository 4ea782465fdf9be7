"""An encoder for other libraries, verified there."""
