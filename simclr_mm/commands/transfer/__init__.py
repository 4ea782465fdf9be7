"""Transfer to other datasets by a linear classifier or by fine-tuning."""
