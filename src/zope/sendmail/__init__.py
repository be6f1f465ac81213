"""Mail that leaves if, and only if, the transaction commits."""
