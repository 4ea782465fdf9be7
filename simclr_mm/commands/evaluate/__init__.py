"""Compare a pretrained encoder with an untrained one and with raw pixels."""
