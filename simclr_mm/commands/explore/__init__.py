"""One HTML page on which an embedded folder is looked at."""
