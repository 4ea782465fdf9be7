"""Files of weights: whose they are, and the config and preprocessing they carry."""
