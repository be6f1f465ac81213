"""The life of a mail as values: states, outcomes, the next attempt, what is written down.  Pure."""
