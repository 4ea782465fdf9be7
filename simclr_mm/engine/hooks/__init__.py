"""What our runner adds to MMEngine's hooks, one file a hook."""
