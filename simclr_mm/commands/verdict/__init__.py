"""Say whether pretraining helped, with intervals."""
