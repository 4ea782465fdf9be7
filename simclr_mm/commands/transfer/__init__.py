"""Transfer to other datasets: a linear classifier, or fine-tuning."""
