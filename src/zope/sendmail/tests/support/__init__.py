"""Servers, processes and conversations that several tests use."""
