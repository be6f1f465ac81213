"""Bridges to frameworks: each imports its framework, and nothing else of the package imports them."""
