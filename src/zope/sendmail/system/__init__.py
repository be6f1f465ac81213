"""The operating system behind small seams: disk, clock, locks."""
