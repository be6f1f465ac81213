"""What the tests of this package are made of, for the tests of its users."""
