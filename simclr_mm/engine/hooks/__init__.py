"""This package's additions to MMEngine's hooks, one file for each hook."""
