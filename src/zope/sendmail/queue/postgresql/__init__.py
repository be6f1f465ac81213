"""A queue in PostgreSQL for any number of processors on any number of machines (docs/howto/several-machines.rst)."""
