"""What the log, subscribers of events and senders are told."""
