"""Bringing tickets and runs out: cards, repositories, trackers."""
