"""Convert checkpoints of other libraries."""
