"""Results of evaluations as a table and as a page."""
