"""Many experiments: described, planned, run on any number of processes and machines, and found again."""
