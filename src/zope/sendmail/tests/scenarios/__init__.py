"""Tests of situations: crashes, faults, neighbours, other releases."""
