"""A ticket (initial weights and a mask), the round that found it, and its score."""

from .compact import compact
from .round import Cost, Round
from .score import Score, evaluate
from .ticket import Ticket, read_ticket

__all__ = ["Cost", "Round", "Score", "Ticket", "compact", "evaluate", "read_ticket"]
