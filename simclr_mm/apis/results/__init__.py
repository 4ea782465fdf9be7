"""What an evaluation found: as a result, as a table and as a page."""
