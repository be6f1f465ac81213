"""Drains a queue: claim, route, hand over, judge, settle, report."""
